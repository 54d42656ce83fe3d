// The updates: each one pass over its vectors, float32 in the order of the contract, the weights' copy written along.
#include "pack.cuh"
#include "value.cuh"
#include "words.cuh"

using Four = Pack<float, 4>;

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

// params -= lr direction(g, vectors), by a rule: its words and hyper-parameters are read once, then every thread takes four
// neighbouring elements.
template <class Rule>
__device__ __forceinline__ void update(
    float* params, const float* grads, float* const (&vectors)[2], const double* control, float weight_decay,
    const double (&hyper)[3], Value* weights, long long n)
{
    if (control[APPLY] == 0) return;
    const Rule rule(control, hyper);
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n) return;
    const float scale = control[SCALE];
    Four param = load<4>(params, first, n), state[2] = {};
    const Four grad = load<4>(grads, first, n);
#pragma unroll
    for (int v = 0; v < Rule::VECTORS; ++v) state[v] = load<4>(vectors[v], first, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float scaled = __fmul_rn(scale, grad.at[j]);
        const float g = weight_decay == 0.0f ? scaled : __fadd_rn(scaled, __fmul_rn(weight_decay, param.at[j]));
        const float direction = rule.direction(g, state[0].at[j], state[1].at[j]);
        param.at[j] = __fsub_rn(param.at[j], __fmul_rn(rule.lr, direction));
    }
#pragma unroll
    for (int v = 0; v < Rule::VECTORS; ++v) store<4>(state[v], vectors[v], first, n);
    store<4>(param, params, first, n);
    store_weights(param, weights, first, n);
}

// The kernel of a rule has the rule's name; vectors and hyper-parameters that it does not have are null and 0.
#define UPDATE_RULE(name, Rule)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256) name(                                                            \
        float* params, const float* grads, float* vector0, float* vector1, const double* control, float weight_decay, \
        double hyper0, double hyper1, double hyper2, Value* weights, long long n)                                      \
    {                                                                                                                  \
        float* const vectors[2] = {vector0, vector1};                                                                  \
        const double hyper[3] = {hyper0, hyper1, hyper2};                                                              \
        update<Rule>(params, grads, vectors, control, weight_decay, hyper, weights, n);                                \
    }

struct Sgd {
    static constexpr int VECTORS = 0;
    float lr;
    __device__ Sgd(const double* control, const double (&)[3]) : lr(control[LR]) {}
    __device__ float direction(float g, float&, float&) const { return g; }
};
UPDATE_RULE(sgd, Sgd)

struct Momentum {
    static constexpr int VECTORS = 1;
    float lr, momentum;
    __device__ Momentum(const double* control, const double (&hyper)[3]) : lr(control[LR]), momentum(hyper[0]) {}
    __device__ float direction(float g, float& velocity, float&) const
    {
        return velocity = __fadd_rn(__fmul_rn(momentum, velocity), g);
    }
};
UPDATE_RULE(momentum, Momentum)

struct Nesterov {
    static constexpr int VECTORS = 1;
    float lr, momentum;
    __device__ Nesterov(const double* control, const double (&hyper)[3]) : lr(control[LR]), momentum(hyper[0]) {}
    __device__ float direction(float g, float& velocity, float&) const
    {
        velocity = __fadd_rn(__fmul_rn(momentum, velocity), g);
        return __fadd_rn(g, __fmul_rn(momentum, velocity));
    }
};
UPDATE_RULE(nesterov, Nesterov)

struct Adam {
    static constexpr int VECTORS = 2;
    float lr, unbias, keep1, take1, keep2, take2, epsilon;
    __device__ Adam(const double* control, const double (&hyper)[3])
        : keep1(hyper[0]), take1(1 - hyper[0]), keep2(hyper[1]), take2(1 - hyper[1]), epsilon(hyper[2])
    {
        // Powers in double are slow on most devices: one thread takes them for its block.
        __shared__ float step, root;
        if (threadIdx.x == 0) {
            step = control[LR] / (1 - pow(hyper[0], control[UPDATE]));
            root = 1 / sqrt(1 - pow(hyper[1], control[UPDATE]));
        }
        __syncthreads();
        lr = step;
        unbias = root;
    }
    __device__ float direction(float g, float& exp_avg, float& exp_avg_sq) const
    {
        exp_avg = __fadd_rn(__fmul_rn(keep1, exp_avg), __fmul_rn(take1, g));
        exp_avg_sq = __fadd_rn(__fmul_rn(keep2, exp_avg_sq), __fmul_rn(take2, __fmul_rn(g, g)));
        return exp_avg / __fadd_rn(__fmul_rn(sqrtf(exp_avg_sq), unbias), epsilon);
    }
};
UPDATE_RULE(adam, Adam)
