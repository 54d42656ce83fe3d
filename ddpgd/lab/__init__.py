"""Gradient descent small enough to look into: functions of a few numbers, and networks of scalars."""
