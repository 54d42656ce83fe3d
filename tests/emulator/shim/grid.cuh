// Twin of ddpgd/kernels/cuda/grid.cuh: the scheduler waits for the blocks, where a GPU would spin.
#ifndef DDPGD_GRID_CUH
#define DDPGD_GRID_CUH

inline void grid_barrier(unsigned* state, Site site = Site::here()) { emulator::grid_barrier(state, site); }

#endif
