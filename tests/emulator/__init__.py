"""CUDA on a CPU, for tests: runs the unchanged text of kernels, and finds what a GPU would let pass.

`fake_cupy.install()` puts a `cupy` in place whose RawModule compiles with g++ and whose launches run here; a child process
gets it from `site/` on its PYTHONPATH. Blocks run in turn, the threads of a block as fibers of one thread of the process,
in the order forward, reverse, random:SEED or interleaved:SEED. The blocks of a cooperative launch run together, each
until `grid_barrier`. Interleaved, blocks leave off at fences, atomics and barriers for others, and what one has written
reaches others only by fences, so that a missing `__threadfence` shows; `engine/coherence.hpp` says how.

A KernelError names kernel, block, thread and line: arrays overrun at their end, static and local arrays indexed outside,
misaligned vectors, barriers of blocks and grids and warp operations that not all reach, threads that leave before a barrier.
Memory that nobody wrote is NaN. A missing barrier shows as a wrong value in one of the orders, a forgotten wait for a
stream with `lazy=True`.

Interleaved, a kernel must not read another block's writes through `volatile`, and no other thread of the process may touch
device memory during a launch.

Not found: races that no order tried shows, endless loops, overruns from one array into a neighbour through a pointer,
more than 48 KiB of static shared memory, too many registers, the last bits of tensor cores and approximate functions, and
text that g++ takes and NVRTC does not.
"""
