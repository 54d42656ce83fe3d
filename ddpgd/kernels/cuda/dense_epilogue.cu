// What a library's product leaves to do: bias and activation, the slope, and the sums of columns.
#include "activation.cuh"
#include "dense_tile.cuh"

constexpr int COLUMNS_PER_BLOCK = NUM_THREADS / NUM_SLICES;

// out = activation(sums + bias), float32 for the identity; out may be sums. Four elements a thread, size = rows x outputs.
extern "C" __global__ void __launch_bounds__(256) activate_sums(const float* sums, const float* bias, void* out,
                                                                long long size, int num_outputs, int activation) {
    const long long first = 4 * (static_cast<long long>(blockIdx.x) * NUM_THREADS + threadIdx.x);
    if (first >= size) return;
    // first % num_outputs in 32 bits, which hold it for layers of up to 2^22 units.
    const unsigned width = num_outputs;
    unsigned column = (blockIdx.x % width * (4 * NUM_THREADS) + 4 * threadIdx.x) % width;
    const Pack<float, 4> four = load<4>(sums, first, size);
    Pack<float, 4> values;
    Pack<Value, 4> rounded;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        values.at[j] = activate(four.at[j] + bias[column], activation);
        rounded.at[j] = to_value(values.at[j]);
        column = column + 1 == width ? 0 : column + 1;
    }
    if (activation == IDENTITY) {
        store<4>(values, static_cast<float*>(out), first, size);
    } else {
        store<4>(rounded, static_cast<Value*>(out), first, size);
    }
}

// dx = sums * slope(x); dx may be sums. Four elements a thread.
extern "C" __global__ void __launch_bounds__(256) multiply_slope(const float* sums, const Value* x, Value* dx, long long size,
                                                                 int activation) {
    const long long first = 4 * (static_cast<long long>(blockIdx.x) * NUM_THREADS + threadIdx.x);
    if (first >= size) return;
    const Pack<float, 4> four = load<4>(sums, first, size);
    const Pack<Value, 4> outputs = load<4>(x, first, size);
    Pack<Value, 4> values;
#pragma unroll
    for (int j = 0; j < 4; ++j) values.at[j] = to_value(four.at[j] * slope(to_float(outputs.at[j]), activation));
    store<4>(values, dx, first, size);
}

// dx *= slope(x), of relu: what a library has rounded is kept or becomes 0. Four elements a thread.
extern "C" __global__ void __launch_bounds__(256) keep_where_active(const Value* x, Value* dx, long long size) {
    const long long first = 4 * (static_cast<long long>(blockIdx.x) * NUM_THREADS + threadIdx.x);
    if (first >= size) return;
    const Pack<Value, 4> outputs = load<4>(x, first, size);
    Pack<Value, 4> values = load<4>(dx, first, size);
#pragma unroll
    for (int j = 0; j < 4; ++j) values.at[j] = to_value(to_float(values.at[j]) * slope(to_float(outputs.at[j]), RELU));
    store<4>(values, dx, first, size);
}

// dbias[g] = the sum of dout_g's rows, by the slices of dense_tile.cuh: a warp sums a slice of 32 columns, and reads many rows
// before it adds them.
extern "C" __global__ void __launch_bounds__(256) sum_columns(const Value* dout, float* dbias, int num_rows, int micro_batch,
                                                              int num_outputs, long long dbias_stride) {
    constexpr int BATCH = 2 * SLICE_UNIT;
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
        int row = slice_index * slice;
#pragma unroll 1
        for (; row + BATCH <= end; row += BATCH) {
            Value values[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) values[i] = at[static_cast<long long>(row + i) * num_outputs];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) sum += to_float(values[i]);
        }
        for (; row < end; ++row) sum += to_float(at[static_cast<long long>(row) * num_outputs]);
    }
    slices[slice_index][lane] = sum;
    __syncthreads();
    if (slice_index == 0 && column < num_outputs) {
        for (int i = 1; i * slice < num_samples; ++i) sum += slices[i][lane];
        dbias[blockIdx.y * dbias_stride + column] = sum;
    }
}
