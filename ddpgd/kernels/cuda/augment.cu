// Images of a micro-batch, transformed at random on their way: affine maps, and elastic fields on top of them.
#include "philox.cuh"
#include "value.cuh"
#include "words.cuh"

constexpr int THREADS = 256;
constexpr unsigned long long AUGMENT = 14;  // of Purpose in philox.py
constexpr int HALVES = 8;  // draws from a block of words

// Every operation is rounded by itself, in the order of reference/augment.py: maps have the same bits there.

// In [-1, 1), from half j of a block of words.
__device__ __forceinline__ float draw(const Words& words, int j)
{
    const unsigned half = static_cast<unsigned>(words.at[j / 2] >> 32 * (j % 2));
    return __fsub_rn(__fmul_rn(static_cast<float>(half >> 8), 0x1p-23f), 1.0f);
}

// 1 - square / divisor * inner.
__device__ __forceinline__ float nested(float square, float divisor, float inner)
{
    return __fsub_rn(1.0f, __fmul_rn(__fdiv_rn(square, divisor), inner));
}

struct Turn {
    float sine, cosine;
};

// Taylor series of half the angle.
__device__ __forceinline__ Turn turn(float angle)
{
    const float half = __fmul_rn(angle, 0.5f), square = __fmul_rn(half, half);
    float sine = 1.0f, cosine = 1.0f;
    const float of_sine[] = {156, 110, 72, 42, 20, 6}, of_cosine[] = {132, 90, 56, 30, 12, 2};
#pragma unroll
    for (int i = 0; i < 6; ++i) {
        sine = nested(square, of_sine[i], sine);
        cosine = nested(square, of_cosine[i], cosine);
    }
    sine = __fmul_rn(half, sine);
    return {__fmul_rn(2.0f, __fmul_rn(sine, cosine)), __fsub_rn(1.0f, __fmul_rn(2.0f, __fmul_rn(sine, sine)))};
}

// The place of a pixel along one axis: by_row row + by_column column + start.
struct Axis {
    float by_row, by_column, start;

    __device__ __forceinline__ float at(int row, int column) const
    {
        return __fadd_rn(__fadd_rn(__fmul_rn(by_row, row), start), __fmul_rn(by_column, column));
    }
};

__device__ __forceinline__ Axis axis_of(float by_row, float by_column, float centre, float row, float column)
{
    return {by_row, by_column, __fsub_rn(centre, __fadd_rn(__fmul_rn(by_row, row), __fmul_rn(by_column, column)))};
}

// axes: of rows and of columns. spreads: what multiplies the draws.
__device__ __forceinline__ void draw_map(const Words& low, const float* spreads, int rows, int columns, Axis* axes)
{
    float number[6];
#pragma unroll
    for (int i = 0; i < 6; ++i) number[i] = __fmul_rn(draw(low, i), spreads[i]);
    const Turn turned = turn(number[2]), slant = turn(number[5]);
    const float tangent = __fdiv_rn(slant.sine, slant.cosine);
    const float height = __fadd_rn(1.0f, number[3]), width = __fadd_rn(1.0f, number[4]);
    const float centre_row = 0.5f * (rows - 1), centre_column = 0.5f * (columns - 1);
    const float row = __fadd_rn(centre_row, number[0]), column = __fadd_rn(centre_column, number[1]);
    axes[0] = axis_of(
        __fdiv_rn(turned.cosine, height), __fdiv_rn(turned.sine, height), centre_row, row, column);
    axes[1] = axis_of(
        __fdiv_rn(__fsub_rn(-turned.sine, __fmul_rn(tangent, turned.cosine)), width),
        __fdiv_rn(__fsub_rn(turned.cosine, __fmul_rn(tangent, turned.sine)), width), centre_column, row, column);
}

// The sum of a line's neighbours of element `at`, by their distance; `stride` lies between two of them.
__device__ __forceinline__ float smoothed(
    const float* line, int stride, int at, int length, const float* weights, int radius)
{
    float sum = 0.0f;
    const int end = min(length, at + radius + 1);
    for (int i = max(0, at - radius); i < end; ++i) sum = fmaf(line[i * stride], weights[abs(i - at)], sum);
    return sum;
}

// A field (rows, columns), smoothed both ways in place, times alpha; `spare` is as large.
__device__ __forceinline__ void smooth(
    float* field, float* spare, int rows, int columns, const float* weights, int radius, float alpha)
{
    const int size = rows * columns;
    for (int i = threadIdx.x; i < size; i += THREADS) {
        spare[i] = smoothed(field + i / columns * columns, 1, i % columns, columns, weights, radius);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += THREADS) {
        field[i] = __fmul_rn(smoothed(spare + i % columns, columns, i / columns, rows, weights, radius), alpha);
    }
    __syncthreads();
}

struct Image {
    const unsigned char* pixels;
    int rows, columns;

    __device__ __forceinline__ float at(int row, int column) const
    {
        const bool inside = row >= 0 && row < rows && column >= 0 && column < columns;
        return inside ? static_cast<float>(pixels[row * columns + column]) : 0.0f;
    }
};

__device__ __forceinline__ float between(float first, float second, float part)
{
    return __fadd_rn(first, __fmul_rn(__fsub_rn(second, first), part));
}

__device__ __forceinline__ float interpolated(const Image& image, float row, float column)
{
    row = fminf(fmaxf(row, -1.0f), static_cast<float>(image.rows));
    column = fminf(fmaxf(column, -1.0f), static_cast<float>(image.columns));
    const float row_floor = floorf(row), column_floor = floorf(column);
    const int above = static_cast<int>(row_floor), left = static_cast<int>(column_floor);
    const float down = __fsub_rn(row, row_floor), right = __fsub_rn(column, column_floor);
    const float top = between(image.at(above, left), image.at(above, left + 1), right);
    const float bottom = between(image.at(above + 1, left), image.at(above + 1, left + 1), right);
    return between(top, bottom, down);
}

// A thread block for a row. factor = 1 / (255 std), shift = mean / std. weights: of the Gaussian, by distance up to
// `radius`; null: without fields. scratch: room for three fields a row; null: they are in shared memory.
extern "C" __global__ void __launch_bounds__(256) gather_augment(
    const unsigned char* images, const unsigned char* labels, const long long* order, const long long* cursor,
    long long offset, float factor, float shift, unsigned long long seed, const float* spreads, const float* weights,
    int radius, float alpha, float* scratch, Value* x, long long* y, int rows, int columns)
{
    extern __shared__ __align__(16) float shared_fields[];
    __shared__ Axis axes[2];
    const long long row = blockIdx.x, sample = order[cursor[FIRST] + offset + row], epoch = cursor[EPOCH];
    const int size = rows * columns;
    float* const fields = scratch == nullptr ? shared_fields : scratch + 3 * row * size;
    if (threadIdx.x == 0) {
        draw_map(philox_of_sample(seed, AUGMENT, epoch, sample, 0, 0), spreads, rows, columns, axes);
        y[row] = labels[sample];
    }
    for (int first = HALVES * threadIdx.x; first < 2 * size && weights != nullptr; first += HALVES * THREADS) {
        const Words words = philox_of_sample(seed, AUGMENT, epoch, sample, 0, 1 + first / HALVES);
#pragma unroll
        for (int j = 0; j < HALVES; ++j) {
            if (first + j < 2 * size) fields[first + j] = draw(words, j);
        }
    }
    __syncthreads();
    for (int field = 0; field < 2 && weights != nullptr; ++field) {
        smooth(fields + field * size, fields + 2 * size, rows, columns, weights, radius, alpha);
    }
    const Image image = {images + sample * size, rows, columns};
    for (int i = threadIdx.x; i < size; i += THREADS) {
        float from_row = axes[0].at(i / columns, i % columns), from_column = axes[1].at(i / columns, i % columns);
        if (weights != nullptr) {
            from_row = __fadd_rn(from_row, fields[i]);
            from_column = __fadd_rn(from_column, fields[size + i]);
        }
        const float pixel = interpolated(image, from_row, from_column);
        x[row * size + i] = to_value(__fsub_rn(__fmul_rn(pixel, factor), shift));
    }
}
