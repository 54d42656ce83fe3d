// Sums in one fixed order, whatever finishes first: within a block, over blocks by the last one, and the squared norm.
#include "pack.cuh"
#include "ptx.cuh"

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
        fence_device();
        last = atomicAdd(counter, 1) == expected - 1;
        if (last) *counter = 0;
        fence_device();
    }
    __syncthreads();
    return last;
}

// Blocks of 1,024 whose squares a thread block sums at most.
constexpr int MOST_SPAN = 32;

// The sum of squares of blocks [first, first + span), zeros from num_blocks on, by a thread block of 256: the complete
// binary tree over them. span is a power of two, at most MOST_SPAN.
__device__ __forceinline__ float squares_of(const float* values, int first, int span, int num_blocks)
{
    constexpr int NUM_WARPS = 8, BATCH = 4;
    __shared__ float of_warps[MOST_SPAN * NUM_WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    of_warps[threadIdx.x] = 0.0f;
    __syncthreads();
    for (int begin = 0; begin < span; begin += BATCH) {
        Pack<float, 4> four[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const long long block = first + begin + i;
            const bool there = begin + i < span && block < num_blocks;
            four[i] = load<4>(values, BLOCK * (there ? block : 0) + 4 * threadIdx.x, there ? BLOCK * (block + 1) : 0);
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const float low = __fmaf_rn(four[i].at[0], four[i].at[0], __fmul_rn(four[i].at[1], four[i].at[1]));
            const float high = __fmaf_rn(four[i].at[2], four[i].at[2], __fmul_rn(four[i].at[3], four[i].at[3]));
            const float sum = warp_sum(__fadd_rn(low, high));
            if (lane == 0 && begin + i < span) of_warps[(begin + i) * NUM_WARPS + warp] = sum;
        }
    }
    __syncthreads();
    return block_sum(of_warps[threadIdx.x]);
}

// The squared norm of values[0 : num_blocks * BLOCK] by thread blocks of 256, one for each span of blocks, in the last of
// them, which returns true. partials: parts + ceil(parts / 32) floats for parts = ceil(num_blocks / span).
__device__ __forceinline__ bool squared_norm(
    const float* values, int num_blocks, int span, float* partials, int* counter, float& squared)
{
    const float sum = squares_of(values, span * blockIdx.x, span, num_blocks);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
    const int parts = (num_blocks + span - 1) / span;
    if (!is_last(counter, parts)) return false;
    squared = tree_over(partials, partials + parts, parts);
    return true;
}
