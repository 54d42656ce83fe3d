// A micro-batch's rows of pixels and labels, picked where they lie and normalised.
#include "pack.cuh"
#include "value.cuh"
#include "words.cuh"

// One thread for 16 pixels of a row; for a row without pixels, one as well. factor = 1 / (255 std), shift = mean / std.
extern "C" __global__ void __launch_bounds__(256) gather_normalise(
    const unsigned char* images, const unsigned char* labels, const long long* order, const long long* cursor,
    long long offset, float factor, float shift, Value* x, long long* y, int num_rows, int num_pixels)
{
    const int chunks = max(1, (num_pixels + 15) / 16);
    const int item = 256 * blockIdx.x + threadIdx.x;
    const long long row = item / chunks;
    if (row >= num_rows) return;
    const int first = 16 * (item % chunks);
    const long long sample = order[cursor[FIRST] + offset + row];
    const Pack<unsigned char, 16> pixels = load<16>(images + sample * num_pixels, first, num_pixels);
    Pack<Value, 16> values;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
        values.at[j] = to_value(__fsub_rn(__fmul_rn(static_cast<float>(pixels.at[j]), factor), shift));
    }
    store<16>(values, x + row * num_pixels, first, num_pixels);
    if (first == 0) y[row] = labels[sample];
}
