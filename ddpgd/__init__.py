"""Data-parallel gradient descent written from the gradient up."""
