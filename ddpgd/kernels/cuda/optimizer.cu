// The updates: each one pass over its vectors, float32 in the order of the contract, the weights' copy written along.
#include "pack.cuh"
#include "value.cuh"
#include "words.cuh"

using Four = Pack<float, 4>;

// What control holds for the update, in float32; written by a kernel before.
struct Update {
    float lr, scale, weight_decay;

    __device__ __forceinline__ Update(const double* control, float weight_decay)
        : lr(control[LR]), scale(control[SCALE]), weight_decay(weight_decay)
    {
    }

    __device__ __forceinline__ float gradient(float grad, float param) const
    {
        const float scaled = __fmul_rn(scale, grad);
        return weight_decay == 0.0f ? scaled : __fadd_rn(scaled, __fmul_rn(weight_decay, param));
    }
};

__device__ __forceinline__ void store_weights(const Four& params, Value* weights, long long first, long long n)
{
    if (weights == nullptr) return;
    Pack<Value, 4> rounded;
#pragma unroll
    for (int j = 0; j < 4; ++j) rounded.at[j] = to_value(params.at[j]);
    store<4>(rounded, weights, first, n);
}

extern "C" __global__ void __launch_bounds__(256) round_weights(const float* params, Value* weights, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    store_weights(load<4>(params, first, n), weights, first, n);
}

extern "C" __global__ void __launch_bounds__(256) sgd(
    float* params, const float* grads, const double* control, float weight_decay, Value* weights, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n || control[APPLY] == 0) return;
    const Update update(control, weight_decay);
    Four param = load<4>(params, first, n);
    const Four grad = load<4>(grads, first, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float g = update.gradient(grad.at[j], param.at[j]);
        param.at[j] = __fsub_rn(param.at[j], __fmul_rn(update.lr, g));
    }
    store<4>(param, params, first, n);
    store_weights(param, weights, first, n);
}

extern "C" __global__ void __launch_bounds__(256) momentum(
    float* params, const float* grads, float* velocities, const double* control, float weight_decay, float momentum,
    Value* weights, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n || control[APPLY] == 0) return;
    const Update update(control, weight_decay);
    Four param = load<4>(params, first, n), velocity = load<4>(velocities, first, n);
    const Four grad = load<4>(grads, first, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float g = update.gradient(grad.at[j], param.at[j]);
        velocity.at[j] = __fadd_rn(__fmul_rn(momentum, velocity.at[j]), g);
        param.at[j] = __fsub_rn(param.at[j], __fmul_rn(update.lr, velocity.at[j]));
    }
    store<4>(velocity, velocities, first, n);
    store<4>(param, params, first, n);
    store_weights(param, weights, first, n);
}

extern "C" __global__ void __launch_bounds__(256) nesterov(
    float* params, const float* grads, float* velocities, const double* control, float weight_decay, float momentum,
    Value* weights, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n || control[APPLY] == 0) return;
    const Update update(control, weight_decay);
    Four param = load<4>(params, first, n), velocity = load<4>(velocities, first, n);
    const Four grad = load<4>(grads, first, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float g = update.gradient(grad.at[j], param.at[j]);
        velocity.at[j] = __fadd_rn(__fmul_rn(momentum, velocity.at[j]), g);
        const float ahead = __fadd_rn(g, __fmul_rn(momentum, velocity.at[j]));
        param.at[j] = __fsub_rn(param.at[j], __fmul_rn(update.lr, ahead));
    }
    store<4>(velocity, velocities, first, n);
    store<4>(param, params, first, n);
    store_weights(param, weights, first, n);
}

extern "C" __global__ void __launch_bounds__(256) adam(
    float* params, const float* grads, float* firsts, float* seconds, const double* control, float weight_decay,
    double beta1, double beta2, float epsilon, Value* weights, long long n)
{
    if (control[APPLY] == 0) return;
    // Powers in double are dear on most devices: one thread takes them for its block.
    __shared__ float step, unbias;
    if (threadIdx.x == 0) {
        step = control[LR] / (1 - pow(beta1, control[UPDATE]));
        unbias = 1 / sqrt(1 - pow(beta2, control[UPDATE]));
    }
    __syncthreads();
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n) return;
    const Update update(control, weight_decay);
    const float keep1 = beta1, take1 = 1 - beta1, keep2 = beta2, take2 = 1 - beta2;
    Four param = load<4>(params, first, n), mean = load<4>(firsts, first, n), square = load<4>(seconds, first, n);
    const Four grad = load<4>(grads, first, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float g = update.gradient(grad.at[j], param.at[j]);
        mean.at[j] = __fadd_rn(__fmul_rn(keep1, mean.at[j]), __fmul_rn(take1, g));
        square.at[j] = __fadd_rn(__fmul_rn(keep2, square.at[j]), __fmul_rn(take2, __fmul_rn(g, g)));
        const float divisor = __fadd_rn(__fmul_rn(sqrtf(square.at[j]), unbias), epsilon);
        param.at[j] = __fsub_rn(param.at[j], __fmul_rn(step, mean.at[j] / divisor));
    }
    store<4>(mean, firsts, first, n);
    store<4>(square, seconds, first, n);
    store<4>(param, params, first, n);
    store_weights(param, weights, first, n);
}
