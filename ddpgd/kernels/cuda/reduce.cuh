// Sums of vectors in the canonical order. Plain additions: nothing may contract or reorder them.
#include "pack.cuh"
#include "place.cuh"

using Four = Pack<float, 4>;

__device__ __forceinline__ Four sum_of(const Four& left, const Four& right)
{
    Four sum;
#pragma unroll
    for (int j = 0; j < 4; ++j) sum.at[j] = __fadd_rn(left.at[j], right.at[j]);
    return sum;
}

// out = left + right.
__device__ __forceinline__ void add_vectors(
    const Place& place, const float* left, const float* right, float* out, long long n)
{
    const long long first = 4 * (256LL * place.x + threadIdx.x);
    store<4>(sum_of(load<4>(left, first, n), load<4>(right, first, n)), out, first, n);
}

// The subtree over up to four rows; their loads wait for nothing.
__device__ __forceinline__ Four sum_of_rows(const float* rows, long long stride, int num_rows, long long first, long long n)
{
    Four row[4];
#pragma unroll
    for (int g = 0; g < 4; ++g) row[g] = load<4>(rows + (g < num_rows ? g : 0) * stride, first, n);
    const Four left = num_rows > 1 ? sum_of(row[0], row[1]) : row[0];
    const Four right = num_rows > 3 ? sum_of(row[2], row[3]) : row[2];
    return num_rows > 2 ? sum_of(left, right) : left;
}

// The complete binary tree over 1 to 32,764 rows by a binary counter: pending[l] is the node of 4 * 2^l rows that waits
// for its right neighbour. out may be rows[0].
__device__ __forceinline__ void sum_tree(
    const Place& place, const float* rows, long long row_stride, int num_rows, float* out, long long n)
{
    constexpr int LEVELS = 13;
    const long long first = 4 * (256LL * place.x + threadIdx.x);
    if (first >= n) return;
    const int num_leaves = (num_rows + 3) / 4;
    Four pending[LEVELS];
    for (int leaf = 0; leaf < num_leaves; ++leaf) {
        const int left = num_rows - 4 * leaf;
        Four node = sum_of_rows(rows + 4 * leaf * row_stride, row_stride, left < 4 ? left : 4, first, n);
        bool placed = false;
        // No way out of this loop: unrolled whole, it keeps `pending` in registers.
#pragma unroll
        for (int level = 0; level < LEVELS; ++level) {
            if (placed) continue;
            placed = (leaf >> level & 1) == 0;
            if (placed) {
                pending[level] = node;
            } else {
                node = sum_of(pending[level], node);
            }
        }
    }
    Four total;
    bool found = false;
#pragma unroll
    for (int level = 0; level < LEVELS; ++level) {
        if ((num_leaves >> level & 1) == 0) continue;
        total = found ? sum_of(pending[level], total) : pending[level];
        found = true;
    }
    store<4>(total, out, first, n);
}
