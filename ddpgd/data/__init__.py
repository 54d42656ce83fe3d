"""Data: where samples come from, and which of them make a micro-batch."""
