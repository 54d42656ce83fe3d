// The update of a weight matrix by its orthogonalised gradient, but for the products. n: its elements.
#include "pack.cuh"
#include "value.cuh"
#include "words.cuh"

using Four = Pack<float, 4>;

// exp_avg = beta exp_avg + g, direction = beta exp_avg + g, with g = (1 - beta) SCALE grads. Without APPLY exp_avg stays.
extern "C" __global__ void __launch_bounds__(256) matrix_direction(
    const float* grads, float* exp_avg, float* direction, const double* control, double beta, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n) return;
    const float keep = beta, take = (1 - beta) * control[SCALE];
    const Four grad = load<4>(grads, first, n);
    Four average = load<4>(exp_avg, first, n), mixed;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float g = __fmul_rn(take, grad.at[j]);
        average.at[j] = __fadd_rn(__fmul_rn(keep, average.at[j]), g);
        mixed.at[j] = __fadd_rn(__fmul_rn(keep, average.at[j]), g);
    }
    store<4>(mixed, direction, first, n);
    if (control[APPLY] != 0) store<4>(average, exp_avg, first, n);
}

// x = x / (norm + epsilon)
extern "C" __global__ void __launch_bounds__(256) matrix_normalise(
    float* x, const float* squared_norm, float epsilon, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n) return;
    const float norm = __fadd_rn(sqrtf(*squared_norm), epsilon);
    Four values = load<4>(x, first, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) values.at[j] = values.at[j] / norm;
    store<4>(values, x, first, n);
}

// polynomial = a I + b gram + c square, of `side` rows and columns each; square may be polynomial.
extern "C" __global__ void __launch_bounds__(256) matrix_polynomial(
    const float* gram, const float* square, float* polynomial, float a, float b, float c, int side)
{
    const long long n = static_cast<long long>(side) * side, at = 256LL * blockIdx.x + threadIdx.x;
    if (at >= n) return;
    const float sum = __fadd_rn(__fmul_rn(c, square[at]), __fmul_rn(b, gram[at]));
    polynomial[at] = at % (side + 1LL) == 0 ? __fadd_rn(sum, a) : sum;
}

// params -= LR factor x + LR weight_decay params; weights follow.
extern "C" __global__ void __launch_bounds__(256) matrix_apply(
    float* params, const float* x, Value* weights, const double* control, double factor, double weight_decay, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n || control[APPLY] == 0) return;
    const float rate = control[LR] * factor, decay = control[LR] * weight_decay;
    const Four orthogonal = load<4>(x, first, n);
    Four param = load<4>(params, first, n);
    Pack<Value, 4> rounded;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        float change = __fmul_rn(rate, orthogonal.at[j]);
        if (weight_decay != 0) change = __fadd_rn(change, __fmul_rn(decay, param.at[j]));
        param.at[j] = __fsub_rn(param.at[j], change);
        rounded.at[j] = to_value(param.at[j]);
    }
    store<4>(param, params, first, n);
    if (weights != nullptr) store<4>(rounded, weights, first, n);
}
