// Windows of columns of matrices, whose rows lie at any distance: copies, and gradients by the input of an activation.
// One thread an element.
#include "activation.cuh"
#include "value.cuh"

template <typename Word>
__device__ __forceinline__ void copy_window(const Word* values, long long values_stride, Word* out, long long out_stride,
                                            long long size, int num_columns)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const long long row = i / num_columns, column = i % num_columns;
    out[row * out_stride + column] = values[row * values_stride + column];
}

extern "C" __global__ void __launch_bounds__(256) copy_4(
    const float* values, long long values_stride, float* out, long long out_stride, long long size,
    int num_columns)
{
    copy_window(values, values_stride, out, out_stride, size, num_columns);
}

extern "C" __global__ void __launch_bounds__(256) copy_2(
    const unsigned short* values, long long values_stride, unsigned short* out, long long out_stride, long long size,
    int num_columns)
{
    copy_window(values, values_stride, out, out_stride, size, num_columns);
}

// dx = dout * slope(x)
extern "C" __global__ void __launch_bounds__(256) activation_backward(
    const float* dout, long long dout_stride, const Value* x, long long x_stride, Value* dx, long long dx_stride,
    long long size, int num_columns, int activation)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const long long row = i / num_columns, column = i % num_columns;
    const float derivative = slope(to_float(x[row * x_stride + column]), activation);
    dx[row * dx_stride + column] = to_value(dout[row * dout_stride + column] * derivative);
}
