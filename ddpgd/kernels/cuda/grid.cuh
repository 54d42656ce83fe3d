// A barrier over all thread blocks of a grid, for kernels that are launched cooperatively.
#ifndef DDPGD_GRID_CUH
#define DDPGD_GRID_CUH
#include "ptx.cuh"

// Waits until all threads of all blocks have called it; each then sees what any of them wrote before.
//
// state[0] is 0 before its first use. Its lower 31 bits count the blocks that have arrived, and are 0 again after each
// barrier; its highest bit flips when the last block arrives. So it serves any number of barriers and of launches, of
// grids of any size, one launch at a time. Every block must come to the same barriers in the same order.
__device__ __forceinline__ void grid_barrier(unsigned* state)
{
    constexpr unsigned FLIP = 0x80000000u;
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
        const unsigned num_blocks = gridDim.x * gridDim.y * gridDim.z;
        const bool first = blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0;
        fence_device();  // what this block wrote, before it counts as arrived
        const unsigned before = atomicAdd(state, first ? FLIP - (num_blocks - 1) : 1);
        const volatile unsigned* const now = state;
        while (((before ^ *now) & FLIP) == 0) {}
        fence_device();  // no read of this block comes earlier
    }
    __syncthreads();
}

#endif
