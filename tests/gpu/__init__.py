"""Tests that want a GPU."""
