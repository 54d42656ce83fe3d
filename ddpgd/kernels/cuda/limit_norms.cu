// Columns of a weight matrix are scaled down to a largest norm, in the order of sums of the contract.
#include "value.cuh"
#include "words.cuh"

constexpr int LANES = 32;

// A thread block of 32 x 32 for 32 columns: thread row l sums rows l, l + 32, ... of the matrix. weights: null, or a copy of it.
extern "C" __global__ void __launch_bounds__(1024) limit_norms(
    float* weight, Value* weights, const double* control, float limit, int num_rows, int num_columns)
{
    __shared__ float sums[LANES][LANES + 1];
    if (control[APPLY] == 0) return;
    const int own = threadIdx.x % LANES, lane = threadIdx.x / LANES, column = LANES * blockIdx.x + own;
    float sum = 0.0f;
    for (int row = lane; row < num_rows && column < num_columns; row += LANES) {
        const float value = weight[static_cast<size_t>(row) * num_columns + column];
        sum = __fadd_rn(sum, __fmul_rn(value, value));
    }
    sums[lane][own] = sum;
    for (int span = 1; span < LANES; span *= 2) {
        __syncthreads();
        if (lane % (2 * span) == 0) sums[lane][own] = __fadd_rn(sums[lane][own], sums[lane + span][own]);
    }
    __syncthreads();
    const float norm = sqrtf(sums[0][own]);
    if (column >= num_columns || norm <= limit) return;
    const float factor = limit / norm;
    for (int row = lane; row < num_rows; row += LANES) {
        const size_t at = static_cast<size_t>(row) * num_columns + column;
        weight[at] = __fmul_rn(weight[at], factor);
        if (weights != nullptr) weights[at] = to_value(weight[at]);
    }
}
