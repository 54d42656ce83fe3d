// Low-rank wires: a matrix (num_rows, num_columns) and its narrow factors, of `width` columns each. All sums are float32,
// in an order that the shapes alone decide.
#include "norm.cuh"

// Columns of a narrow matrix that one pass over the wide one computes.
constexpr int COLUMNS = 4;
constexpr int WARPS = 8;
// Rows of the wide matrix for which a thread of add_product has its column's factors at hand.
constexpr int ROWS = 8;
constexpr float LEAST_LEFT = 1.0f / 1024;

// left = matrix right, a warp for each row and four columns: the matrix is read once for every four.
extern "C" __global__ void __launch_bounds__(256) project(
    const float* matrix, const float* right, float* left, int num_rows, int num_columns, int width)
{
    const int lane = threadIdx.x % 32, first = COLUMNS * blockIdx.y;
    const long long row = static_cast<long long>(WARPS) * blockIdx.x + threadIdx.x / 32;
    if (row >= num_rows) return;
    float sum[COLUMNS] = {};
    for (long long j = lane; j < num_columns; j += 32) {
        const float element = matrix[row * num_columns + j];
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            if (first + c < width) sum[c] = __fmaf_rn(element, right[j * width + first + c], sum[c]);
        }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
        const float total = warp_sum(sum[c]);
        if (lane == 0 && first + c < width) left[row * width + first + c] = total;
    }
}

// The inner product of two columns, in every thread: each adds up its own rows, then the tree over threads.
__device__ __forceinline__ float dot(const float* left, const float* right, int num_rows, int width)
{
    float sum = 0.0f;
    for (long long i = threadIdx.x; i < num_rows; i += blockDim.x) {
        sum = __fmaf_rn(left[i * width], right[i * width], sum);
    }
    return block_sum(sum);
}

// One thread block; a thread reads and writes its own rows alone. Each of the width^2 inner products waits for the one
// before it: their number, not the bytes, is what this takes.
extern "C" __global__ void __launch_bounds__(1024) orthonormalise(
    float* matrix, const float* spare, int num_rows, int width)
{
    for (int c = 0; c < width; ++c) {
        float* const column = matrix + c;
        const float before = sqrtf(dot(column, column, num_rows, width));
        for (int step = 0; step < 2 * c; ++step) {
            const float* const other = matrix + step % c;
            const float along = dot(other, column, num_rows, width);
            for (long long i = threadIdx.x; i < num_rows; i += blockDim.x) {
                column[i * width] = __fsub_rn(column[i * width], __fmul_rn(along, other[i * width]));
            }
        }
        const float after = sqrtf(dot(column, column, num_rows, width));
        const bool is_left = after > LEAST_LEFT * before;
        for (long long i = threadIdx.x; i < num_rows; i += blockDim.x) {
            const float instead = spare == nullptr ? 0.0f : spare[i * width + c];
            column[i * width] = is_left ? column[i * width] / after : instead;
        }
    }
}

// right = matrix^T left, a thread block for 32 of its rows and four columns: each warp adds up every eighth row of the
// matrix, which is read once for every four columns, then one warp a column adds up the warps' sums.
extern "C" __global__ void __launch_bounds__(256) project_back(
    const float* matrix, const float* left, float* right, int num_rows, int num_columns, int width)
{
    __shared__ float of_warps[WARPS][COLUMNS][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = COLUMNS * blockIdx.y;
    const long long j = 32LL * blockIdx.x + lane;
    float sum[COLUMNS] = {};
    for (long long i = warp; i < num_rows; i += WARPS) {
        const float element = j < num_columns ? matrix[i * num_columns + j] : 0.0f;
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            if (first + c < width) sum[c] = __fmaf_rn(element, left[i * width + first + c], sum[c]);
        }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) of_warps[warp][c][lane] = sum[c];
    __syncthreads();
    if (warp >= COLUMNS || first + warp >= width || j >= num_columns) return;
    float total = of_warps[0][warp][lane];
#pragma unroll
    for (int other = 1; other < WARPS; ++other) total = __fadd_rn(total, of_warps[other][warp][lane]);
    right[j * width + first + warp] = total;
}

// matrix += factor left right^T: 4 bytes read and 4 written an element, and right once for every eight rows.
extern "C" __global__ void __launch_bounds__(256) add_product(
    const float* left, const float* right, float factor, float* matrix, int num_rows, int num_columns, int width)
{
    const long long first = static_cast<long long>(ROWS) * blockIdx.x, j = 256LL * blockIdx.y + threadIdx.x;
    if (j >= num_columns) return;
    float sum[ROWS] = {};
    for (int c = 0; c < width; ++c) {
        const float of_column = right[j * width + c];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            if (first + i < num_rows) sum[i] = __fmaf_rn(left[(first + i) * width + c], of_column, sum[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        if (first + i >= num_rows) return;
        float* const element = matrix + (first + i) * num_columns + j;
        *element = __fadd_rn(*element, __fmul_rn(factor, sum[i]));
    }
}
