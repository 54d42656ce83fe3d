// The updates: one pass over the vectors for each rule, in float32 and in the order of the contract; weights follow params.
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

// At most; backend.py has the same numbers.
constexpr int VECTORS = 3, FACTORS = 4;

// The words of an update, as `decide` left them, and the hyper-parameters of a rule, in the order of its row.
struct Words {
    double lr, number;
    double hyper[FACTORS];
};

// A rule: the number of its vectors, what all threads of a block share (made by all of them together), and
// direction(g, state): changes the state of one element; the change of its param is lr times what it returns.
struct Rule {
    float lr;

    __device__ explicit Rule(const Words& words) : lr(words.lr) {}
};

template <class R>
__device__ __forceinline__ void update(
    float* params, const float* grads, float* const (&vectors)[VECTORS], const double* control, float weight_decay,
    const double (&hyper)[FACTORS], Value* weights, long long n)
{
    if (control[APPLY] == 0) return;
    const R rule({control[LR], control[UPDATE], {hyper[0], hyper[1], hyper[2], hyper[3]}});
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    if (first >= n) return;
    const float scale = control[SCALE];
    Four param = load<4>(params, first, n), held[VECTORS] = {};
    const Four grad = load<4>(grads, first, n);
#pragma unroll
    for (int v = 0; v < R::NUM_VECTORS; ++v) held[v] = load<4>(vectors[v], first, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float scaled = __fmul_rn(scale, grad.at[j]);
        const float g = weight_decay == 0.0f ? scaled : __fadd_rn(scaled, __fmul_rn(weight_decay, param.at[j]));
        float state[VECTORS] = {held[0].at[j], held[1].at[j], held[2].at[j]};
        param.at[j] = __fsub_rn(param.at[j], __fmul_rn(rule.lr, rule.direction(g, state)));
#pragma unroll
        for (int v = 0; v < R::NUM_VECTORS; ++v) held[v].at[j] = state[v];
    }
#pragma unroll
    for (int v = 0; v < R::NUM_VECTORS; ++v) store<4>(held[v], vectors[v], first, n);
    store<4>(param, params, first, n);
    store_weights(param, weights, first, n);
}

// The kernel of a rule has the rule's name. Vectors that it does not have are null, hyper-parameters 0.
#define KERNEL(name, R)                                                                                               \
    extern "C" __global__ void __launch_bounds__(256) name(                                                           \
        float* params, const float* grads, float* vector0, float* vector1, float* vector2, const double* control,     \
        float weight_decay, double hyper0, double hyper1, double hyper2, double hyper3, Value* weights, long long n)  \
    {                                                                                                                 \
        float* const vectors[VECTORS] = {vector0, vector1, vector2};                                                  \
        const double hyper[FACTORS] = {hyper0, hyper1, hyper2, hyper3};                                               \
        update<R>(params, grads, vectors, control, weight_decay, hyper, weights, n);                                  \
    }

struct Sgd : Rule {
    static constexpr int NUM_VECTORS = 0;

    using Rule::Rule;

    __device__ float direction(float g, float*) const { return g; }
};
KERNEL(sgd, Sgd)

struct Momentum : Rule {
    static constexpr int NUM_VECTORS = 1;
    float momentum;

    __device__ explicit Momentum(const Words& words) : Rule(words), momentum(words.hyper[0]) {}

    __device__ float direction(float g, float* state) const
    {
        return state[0] = __fadd_rn(__fmul_rn(momentum, state[0]), g);
    }
};
KERNEL(momentum, Momentum)

struct Nesterov : Momentum {
    using Momentum::Momentum;

    __device__ float direction(float g, float* state) const
    {
        return __fadd_rn(g, __fmul_rn(momentum, Momentum::direction(g, state)));
    }
};
KERNEL(nesterov, Nesterov)

struct Adam : Rule {
    static constexpr int NUM_VECTORS = 2;
    float unbias, keep1, take1, keep2, take2, epsilon;

    __device__ explicit Adam(const Words& words)
        : Rule(words), keep1(words.hyper[0]), take1(1 - words.hyper[0]), keep2(words.hyper[1]),
          take2(1 - words.hyper[1]), epsilon(words.hyper[2])
    {
        // Powers in double are slow on most devices: one thread takes them for its block.
        __shared__ float shared_lr, shared_unbias;
        if (threadIdx.x == 0) {
            shared_lr = words.lr / (1 - pow(words.hyper[0], words.number));
            shared_unbias = 1 / sqrt(1 - pow(words.hyper[1], words.number));
        }
        __syncthreads();
        lr = shared_lr;
        unbias = shared_unbias;
    }

    __device__ float direction(float g, float* state) const
    {
        state[0] = __fadd_rn(__fmul_rn(keep1, state[0]), __fmul_rn(take1, g));
        state[1] = __fadd_rn(__fmul_rn(keep2, state[1]), __fmul_rn(take2, __fmul_rn(g, g)));
        return state[0] / __fadd_rn(__fmul_rn(sqrtf(state[1]), unbias), epsilon);
    }
};
KERNEL(adam, Adam)
