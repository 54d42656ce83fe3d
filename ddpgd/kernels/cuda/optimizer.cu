// The updates: one pass over the vectors for each rule, in float32 and in the order of the contract; weights follow params.
#include "decision.cuh"
#include "grid.cuh"
#include "norm.cuh"
#include "value.cuh"

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

// The vectors of an update.
struct Vectors {
    float* params;
    const float* grads;
    float* state[VECTORS];
    Value* weights;
    long long size;
};

// Updates four elements from `first` on.
template <class R>
__device__ __forceinline__ void update_four(
    const R& rule, const Vectors& vectors, float scale, float weight_decay, long long first)
{
    const long long n = vectors.size;
    if (first >= n) return;
    Four param = load<4>(vectors.params, first, n), held[VECTORS] = {};
    const Four grad = load<4>(vectors.grads, first, n);
#pragma unroll
    for (int v = 0; v < R::NUM_VECTORS; ++v) held[v] = load<4>(vectors.state[v], first, n);
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
    for (int v = 0; v < R::NUM_VECTORS; ++v) store<4>(held[v], vectors.state[v], first, n);
    store<4>(param, vectors.params, first, n);
    store_weights(param, vectors.weights, first, n);
}

template <class R>
__device__ __forceinline__ void update(
    const Vectors& vectors, const double* control, float weight_decay, const double (&hyper)[FACTORS])
{
    if (control[APPLY] == 0) return;
    const R rule({control[LR], control[UPDATE], {hyper[0], hyper[1], hyper[2], hyper[3]}});
    update_four(rule, vectors, control[SCALE], weight_decay, 4 * (256LL * blockIdx.x + threadIdx.x));
}

// Thread blocks of a grid that decides and updates at most; backend.py has the same number.
constexpr int MOST_PARTS = 2048;

// `decide` and the update in one cooperative grid: each thread block sums the squares of a span of blocks, all wait, each
// finds the same decision, and updates its span. partials: a float for each thread block.
template <class R>
__device__ __forceinline__ void decide_and_update(
    const Vectors& vectors, float weight_decay, const double (&hyper)[FACTORS], const Places& at, const Policy& policy,
    int span, float* partials, unsigned* barrier)
{
    __shared__ float nodes[MOST_PARTS + MOST_PARTS / 32];
    __shared__ Words words;
    __shared__ float scale;
    __shared__ bool applied;
    const int num_blocks = static_cast<int>(vectors.size / BLOCK), parts = gridDim.x;
    const Before before(at);
    const float own = squares_of(vectors.grads, span * blockIdx.x, span, num_blocks);
    if (threadIdx.x == 0) partials[blockIdx.x] = own;
    grid_barrier(barrier);
    for (int i = threadIdx.x; i < parts; i += 256) nodes[i] = *static_cast<const volatile float*>(partials + i);
    __syncthreads();
    const float squared = tree_over(nodes, nodes + MOST_PARTS, parts);
    if (threadIdx.x == 0) {
        const Decision decision(squared, before, policy);
        if (blockIdx.x == 0) decision.write(before, policy, at);  // all blocks have read what was before
        words = {decision.lr, decision.update, {hyper[0], hyper[1], hyper[2], hyper[3]}};
        scale = decision.scale;
        applied = decision.applied;
    }
    __syncthreads();
    if (!applied) return;
    const R rule(words);
    for (int block = 0; block < span; ++block) {
        const long long first = static_cast<long long>(span) * blockIdx.x + block;
        update_four(rule, vectors, scale, weight_decay, BLOCK * first + 4 * threadIdx.x);
    }
}

// The kernels of a rule have the rule's name. Vectors that it does not have are null, hyper-parameters 0.
#define KERNEL(name, R)                                                                                               \
    extern "C" __global__ void __launch_bounds__(256) name(                                                           \
        float* params, const float* grads, float* vector0, float* vector1, float* vector2, float weight_decay,        \
        double hyper0, double hyper1, double hyper2, double hyper3, Value* weights, long long n,                      \
        const double* control)                                                                                        \
    {                                                                                                                 \
        const Vectors vectors = {params, grads, {vector0, vector1, vector2}, weights, n};                             \
        const double hyper[FACTORS] = {hyper0, hyper1, hyper2, hyper3};                                               \
        update<R>(vectors, control, weight_decay, hyper);                                                             \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256) decide_and_##name(                                              \
        float* params, const float* grads, float* vector0, float* vector1, float* vector2, float weight_decay,        \
        double hyper0, double hyper1, double hyper2, double hyper3, Value* weights, long long n, const float* tail,   \
        const double* lrs, long long* cursor, double* control, double* history, int history_rows, int global_batch,   \
        double clip_norm, int growth_interval, double largest_loss_scale, int span, float* partials, int* barrier)            \
    {                                                                                                                 \
        const Vectors vectors = {params, grads, {vector0, vector1, vector2}, weights, n};                             \
        const double hyper[FACTORS] = {hyper0, hyper1, hyper2, hyper3};                                               \
        const Places at = {tail, lrs, cursor, control, history, history_rows};                                        \
        const Policy policy = {global_batch, clip_norm, growth_interval, largest_loss_scale};                         \
        decide_and_update<R>(                                                                                         \
            vectors, weight_decay, hyper, at, policy, span, partials, reinterpret_cast<unsigned*>(barrier));          \
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
