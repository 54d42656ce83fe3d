"""CUDA on a CPU: runs unchanged kernels for tests. `fake_cupy.install()` is the way in."""
