// The place of a thread block among those of a launch.

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
