// What a library's product leaves to do: bias and activation, the slope, and the sums of columns.
#include "activation.cuh"
#include "dense_tile.cuh"

constexpr int COLUMNS_PER_BLOCK = NUM_THREADS / NUM_SLICES;

// out = activation(sums + bias), float32 for the identity; out may be sums. One thread an element, size = rows x outputs.
extern "C" __global__ void __launch_bounds__(256) activate_sums(const float* sums, const float* bias, void* out,
                                                                long long size, int num_outputs, int activation) {
    const long long i = static_cast<long long>(blockIdx.x) * NUM_THREADS + threadIdx.x;
    if (i >= size) return;
    // i % num_outputs in 32 bits, which hold it for layers of up to 2^24 units.
    const unsigned width = num_outputs, first_column = blockIdx.x % width * NUM_THREADS % width;
    const float value = activate(sums[i] + bias[(first_column + threadIdx.x) % width], activation);
    if (activation == IDENTITY) {
        static_cast<float*>(out)[i] = value;
    } else {
        static_cast<Value*>(out)[i] = to_value(value);
    }
}

// dx = sums * slope(x); dx may be sums.
extern "C" __global__ void __launch_bounds__(256) multiply_slope(const float* sums, const Value* x, Value* dx, long long size,
                                                                 int activation) {
    const long long i = static_cast<long long>(blockIdx.x) * NUM_THREADS + threadIdx.x;
    if (i < size) dx[i] = to_value(sums[i] * slope(to_float(x[i]), activation));
}

// dbias[g] = the sum of dout_g's rows, by the slices of dense_tile.cuh: a warp sums a slice of 32 columns.
extern "C" __global__ void __launch_bounds__(256) sum_columns(const Value* dout, float* dbias, int num_rows, int micro_batch,
                                                              int num_outputs, long long dbias_stride) {
    __shared__ float slices[NUM_SLICES][COLUMNS_PER_BLOCK];
    const int slice_index = threadIdx.x / COLUMNS_PER_BLOCK, lane = threadIdx.x % COLUMNS_PER_BLOCK;
    const int column = blockIdx.x * COLUMNS_PER_BLOCK + lane;
    const int first_sample = blockIdx.y * micro_batch;
    const int num_samples = min(micro_batch, num_rows - first_sample);
    const int slice = slice_length(num_samples);
    float sum = 0.0f;
    if (column < num_outputs) {
        const Value* const at = dout + static_cast<size_t>(first_sample) * num_outputs + column;
        const int end = min((slice_index + 1) * slice, num_samples);
        for (int row = slice_index * slice; row < end; ++row) sum += to_float(at[static_cast<size_t>(row) * num_outputs]);
    }
    slices[slice_index][lane] = sum;
    __syncthreads();
    if (slice_index == 0 && column < num_outputs) {
        for (int i = 1; i * slice < num_samples; ++i) sum += slices[i][lane];
        dbias[blockIdx.y * dbias_stride + column] = sum;
    }
}
