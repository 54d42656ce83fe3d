// The place of a thread block among those of a launch, and of a thread in it.
#include "ptx.cuh"

struct Place {
    int x, y, z;
    int num_x;  // thread blocks in x
};

// Where this thread block stands in the grid. Kernels that play other launches give their thread blocks other places.
__device__ __forceinline__ Place place_in_grid()
{
    return {
        static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z),
        static_cast<int>(gridDim.x)};
}

// threadIdx.x. What follows from it is computed where it is used, not before the loop over the steps of a persistent kernel,
// where it would take registers from all phases.
__device__ __forceinline__ int thread_of_block()
{
    int thread = threadIdx.x;
    keep_in_register(thread);
    return thread;
}
