// Sums of vectors in the canonical order, and squared norms.
#include "norm.cuh"
#include "reduce.cuh"

extern "C" __global__ void __launch_bounds__(256) add(const float* left, const float* right, float* out, long long n)
{
    add_vectors(place_in_grid(), left, right, out, n);
}

extern "C" __global__ void __launch_bounds__(256) tree_sum(
    const float* rows, long long row_stride, int num_rows, float* out, long long n)
{
    sum_tree(place_in_grid(), rows, row_stride, num_rows, out, n);
}

extern "C" __global__ void __launch_bounds__(256) squared_norms(
    const float* rows, long long row_stride, int num_blocks, int span, float* partials, int* counters, float* out,
    long long out_stride)
{
    const long long row = blockIdx.y, room = gridDim.x + (gridDim.x + 31) / 32;
    float squared;
    if (!squared_norm(rows + row * row_stride, num_blocks, span, partials + row * room, counters + row, squared)) return;
    if (threadIdx.x == 0) out[row * out_stride] = squared;
}
