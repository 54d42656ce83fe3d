"""Kernels: `ops.py` is the contract, `reference.py` its NumPy form."""
