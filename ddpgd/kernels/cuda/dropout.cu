// Dropout: a unit that is left out becomes 0, the others grow. The draws of a sample depend on nothing beside it.
#include "philox.cuh"
#include "value.cuh"
#include "words.cuh"

// Units whose draws are one block of Philox: four words of four.
constexpr int UNITS = 16;

// One thread for the units of a block of a row; x and out are windows of num_columns columns, the units from `first` on.
extern "C" __global__ void __launch_bounds__(256) dropout(
    const Value* x, long long x_stride, const long long* order, const long long* cursor, long long offset,
    unsigned long long seed, unsigned long long purpose, int layer, int threshold, float scale, Value* out,
    long long out_stride, int num_rows, int first, int num_columns)
{
    const int first_block = first / UNITS, num_blocks = (first + num_columns - 1) / UNITS + 1 - first_block;
    const long long item = 256LL * blockIdx.x + threadIdx.x, row = item / num_blocks;
    if (row >= num_rows) return;
    const int block = first_block + static_cast<int>(item % num_blocks), begin = UNITS * block - first;
    const long long sample = order[cursor[FIRST] + offset + row];
    const Words words = philox_of_sample(seed, purpose, cursor[EPOCH], sample, layer, block);
    const Value* const from = x + row * x_stride;
    Value* const to = out + row * out_stride;
#pragma unroll
    for (int j = 0; j < UNITS; ++j) {
        const int column = begin + j;
        if (column < 0 || column >= num_columns) continue;
        const int draw = static_cast<int>(words.at[j / 4] >> 16 * (j % 4) & 0xffff);
        to[column] = to_value(to_float(from[column]) * (draw < threshold ? 0.0f : scale));
    }
}
