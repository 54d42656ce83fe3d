// Sums in one fixed order, whatever finishes first: within a block, over blocks by the last one, and the squared norm.
#include "pack.cuh"

constexpr int BLOCK = 1024;

// The sum over a warp, in every lane: the complete binary tree over its lanes.
__device__ __forceinline__ float warp_sum(float value)
{
#pragma unroll
    for (int span = 1; span < 32; span *= 2) value = __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, span));
    return value;
}

// The sum over a thread block of whole warps, in every thread: the complete binary tree over threads.
__device__ __forceinline__ float block_sum(float value)
{
    __shared__ float of_warps[32];
    const int lane = threadIdx.x % 32, num_warps = blockDim.x / 32;
    value = warp_sum(value);
    __syncthreads();  // a sum before this one may still be read
    if (lane == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_sum(lane < num_warps ? of_warps[lane] : 0.0f);
}

// The complete binary tree over leaves[0 : count], zeros beyond, by one thread block of whole warps: a pass of warps over
// 32 leaves each is five levels. `leaves` and `spare`, ceil(count / 32) floats, are overwritten.
__device__ __forceinline__ float tree_over(float* leaves, float* spare, int count)
{
    const int lane = threadIdx.x % 32;
    while (count > 1) {
        for (int base = threadIdx.x - lane; base < count; base += blockDim.x) {
            const float node = warp_sum(base + lane < count ? leaves[base + lane] : 0.0f);
            if (lane == 0) spare[base / 32] = node;
        }
        __syncthreads();
        float* const nodes = spare;
        spare = leaves;
        leaves = nodes;
        count = (count + 31) / 32;
    }
    return leaves[0];
}

// True in the last of `expected` thread blocks to come here, which then sees what the others wrote before.
// counter[0] is 0 before the first launch and after each.
__device__ __forceinline__ bool is_last(int* counter, int expected)
{
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(counter, 1) == expected - 1;
        if (last) *counter = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}

// The squared norm of values[0 : num_blocks * BLOCK] by thread blocks of 256, one for each block of 1,024, in the last
// of them, which returns true. partials: num_blocks + ceil(num_blocks / 32) floats.
__device__ __forceinline__ bool squared_norm(
    const float* values, int num_blocks, float* partials, int* counter, float& squared)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    const Pack<float, 4> four = load<4>(values, first, static_cast<long long>(num_blocks) * BLOCK);
    const float low = __fmaf_rn(four.at[0], four.at[0], __fmul_rn(four.at[1], four.at[1]));
    const float high = __fmaf_rn(four.at[2], four.at[2], __fmul_rn(four.at[3], four.at[3]));
    const float sum = block_sum(__fadd_rn(low, high));
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
    if (!is_last(counter, num_blocks)) return false;
    squared = tree_over(partials, partials + num_blocks, num_blocks);
    return true;
}
