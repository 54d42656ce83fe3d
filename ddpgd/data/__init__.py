"""Data: sources of samples, their division into batches, and pictures to predict."""
