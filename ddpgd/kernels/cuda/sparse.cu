// Sparse wires: what is kept, its elements of largest magnitude, and their sum. Atomics count alone: no sum of floats has
// the order of arrival.
#include "pack.cuh"

constexpr int NUM_BINS = 2048;
constexpr int TOP_SHIFT = 20;

using Four = Pack<float, 4>;
using Count = unsigned long long;

// What is known of the k-th largest magnitude, which is found in three digits: its upper 11 bits, and twice 10.
struct Search {
    unsigned least;             // the magnitude's bits; those of digits to come are 0
    unsigned wanted;            // how many of the elements that agree with these bits are among the k
    unsigned counts[NUM_BINS];  // of elements, by their next digit; 0 before the first search and after each
};

__device__ __forceinline__ unsigned magnitude_of(float value) { return __float_as_uint(value) & 0x7fffffffu; }

// The sum over the threads before this one, and over all of the block, which is of whole warps.
__device__ __forceinline__ Count block_scan(Count own, Count& total)
{
    __shared__ Count of_warps[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, num_warps = blockDim.x / 32;
    Count sum = own;
#pragma unroll
    for (int span = 1; span < 32; span *= 2) {
        const Count before = __shfl_up_sync(0xffffffffu, sum, span);
        if (lane >= span) sum += before;
    }
    __syncthreads();  // a scan before this one may still be read
    if (lane == 31) of_warps[warp] = sum;
    __syncthreads();
    sum -= own;
    total = 0;
    for (int other = 0; other < num_warps; ++other) {
        if (other == warp) sum += total;
        total += of_warps[other];
    }
    return sum;
}

// 8 bytes read and 4 written an element; with velocities, 12 and 8.
extern "C" __global__ void __launch_bounds__(256) accumulate(
    const float* values, float factor, float* velocities, float momentum, float* kept, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    Four change = load<4>(values, first, n), sum = load<4>(kept, first, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) change.at[j] = __fmul_rn(factor, change.at[j]);
    if (velocities != nullptr) {
        const Four velocity = load<4>(velocities, first, n);
#pragma unroll
        for (int j = 0; j < 4; ++j) change.at[j] = __fadd_rn(__fmul_rn(momentum, velocity.at[j]), change.at[j]);
        store<4>(change, velocities, first, n);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sum.at[j] = __fadd_rn(sum.at[j], change.at[j]);
    store<4>(sum, kept, first, n);
}

// Counts the elements that agree with the digits that are found, by the digit at `shift`: 4 bytes read an element.
// Digit 0 is not counted, as most elements may have it: it is what remains.
extern "C" __global__ void __launch_bounds__(256) count_digits(const float* kept, long long n, int shift, Search* search)
{
    __shared__ unsigned counts[NUM_BINS];
    for (int digit = threadIdx.x; digit < NUM_BINS; digit += 256) counts[digit] = 0;
    __syncthreads();
    const int width = shift == TOP_SHIFT ? 11 : 10;
    const unsigned least = search->least;
    for (long long first = 4 * (256LL * blockIdx.x + threadIdx.x); first < n; first += 4 * 256LL * gridDim.x) {
        const Four four = load<4>(kept, first, n);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const unsigned magnitude = magnitude_of(four.at[j]);
            const unsigned digit = magnitude >> shift & ((1u << width) - 1);
            if (digit != 0 && (magnitude ^ least) >> (shift + width) == 0) atomicAdd(counts + digit, 1u);
        }
    }
    __syncthreads();
    for (int digit = threadIdx.x; digit < NUM_BINS; digit += 256) {
        if (counts[digit] != 0) atomicAdd(search->counts + digit, counts[digit]);
    }
}

// Finds the digit at `shift` from the counts, largest first, and clears them: one thread block.
extern "C" __global__ void __launch_bounds__(256) find_digit(int shift, unsigned k, Search* search)
{
    constexpr int EACH = NUM_BINS / 256;
    const int highest = NUM_BINS - 1 - EACH * threadIdx.x;
    const unsigned wanted = shift == TOP_SHIFT ? k : search->wanted, known = shift == TOP_SHIFT ? 0 : search->least;
    unsigned own[EACH], sum = 0;
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        own[j] = search->counts[highest - j];
        search->counts[highest - j] = 0;
        sum += own[j];
    }
    Count total;
    unsigned above = static_cast<unsigned>(block_scan(sum, total));
    if (above >= wanted) return;
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        const unsigned digit = highest - j;
        if (digit == 0 || wanted - above <= own[j]) {
            search->least = known | digit << shift;
            search->wanted = wanted - above;
            return;
        }
        above += own[j];
    }
}

// Sums of these count the magnitudes over the least, in the upper half, and those equal to it, in the lower.
__device__ __forceinline__ Count mark_of(unsigned magnitude, unsigned least)
{
    return magnitude > least ? 1ull << 32 : magnitude == least ? 1 : 0;
}

// Zeros beyond the last element are counted too: nothing comes after them.
__device__ __forceinline__ Count marks_of(const Four& four, unsigned least)
{
    Count marks = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) marks += mark_of(magnitude_of(four.at[j]), least);
    return marks;
}

// marks[b]: of elements 1,024 b to 1,024 b + 1,023. 4 bytes read an element.
extern "C" __global__ void __launch_bounds__(256) count_marks(
    const float* kept, long long n, const Search* search, Count* marks)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    Count total;
    block_scan(marks_of(load<4>(kept, first, n), search->least), total);
    if (threadIdx.x == 0) marks[blockIdx.x] = total;
}

// marks[b] becomes the sum of those before it: one thread block.
extern "C" __global__ void __launch_bounds__(1024) scan_marks(Count* marks, long long num_blocks)
{
    Count before = 0;
    for (long long base = 0; base < num_blocks; base += 1024) {
        const long long block = base + threadIdx.x;
        Count total;
        const Count within = block_scan(block < num_blocks ? marks[block] : 0, total);
        if (block < num_blocks) marks[block] = before + within;
        before += total;
    }
}

// Writes what is over the least, and the first of its equals, in order. 4 bytes read an element, 12 to 16 written a place.
extern "C" __global__ void __launch_bounds__(256) take_marked(
    float* kept, float* velocities, long long n, const Search* search, const Count* marks, unsigned* indices,
    float* values)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    const unsigned least = search->least, wanted = search->wanted;
    const Four four = load<4>(kept, first, n);
    Count total;
    Count before = marks[blockIdx.x] + block_scan(marks_of(four, least), total);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if (first + j >= n) return;
        const Count mark = mark_of(magnitude_of(four.at[j]), least);
        const unsigned over = before >> 32, equal = static_cast<unsigned>(before);
        before += mark;
        if (mark == 0 || (mark == 1 && equal >= wanted)) continue;
        const unsigned place = over + min(equal, wanted);
        indices[place] = static_cast<unsigned>(first + j);
        values[place] = four.at[j];
        kept[first + j] = 0.0f;
        if (velocities != nullptr) velocities[first + j] = 0.0f;
    }
}

// 12 bytes read and 4 written a place.
extern "C" __global__ void __launch_bounds__(256) scatter_add(
    const unsigned* indices, const float* values, float factor, float* out, long long k)
{
    const long long i = 256LL * blockIdx.x + threadIdx.x;
    if (i >= k) return;
    float* const to = out + indices[i];
    *to = __fadd_rn(*to, __fmul_rn(factor, values[i]));
}
