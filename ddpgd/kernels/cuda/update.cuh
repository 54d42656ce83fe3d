// Updates: one pass over the vectors, in float32 and in the order of the contract; weights follow params.
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

// At most; backend.py has the same numbers.
constexpr int VECTORS = 3, FACTORS = 4;

// The words of an update, as `decide` left them, and the hyper-parameters of a rule, in the order of its row.
struct Words {
    double lr, number, clip_value;
    double hyper[FACTORS];
};

// The first hyper-parameter: the momentum of the step, where there is one.
__device__ __forceinline__ double first_of(double momentum, double own) { return momentum != 0 ? momentum : own; }

// A rule: the number of its vectors, what all threads of a block share (made by all of them together), and
// direction(g, state): changes the state of one element; the change of its param is lr times what it returns. Where weight
// decay is decoupled, g is without it, and rate times it shrinks the param.
struct Rule {
    static constexpr bool DECOUPLED = false;
    float lr, rate, clip_value;

    __device__ explicit Rule(const Words& words) : lr(words.lr), rate(words.lr), clip_value(words.clip_value) {}

    __device__ float clipped(float g) const
    {
        return clip_value > 0 && fabsf(g) > clip_value ? copysignf(clip_value, g) : g;
    }
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
        const float scaled = rule.clipped(__fmul_rn(scale, grad.at[j]));
        const bool decays = weight_decay != 0.0f;
        const float joining = __fmul_rn(R::DECOUPLED ? __fmul_rn(rule.rate, weight_decay) : weight_decay, param.at[j]);
        const float g = decays && !R::DECOUPLED ? __fadd_rn(scaled, joining) : scaled;
        float state[VECTORS] = {held[0].at[j], held[1].at[j], held[2].at[j]};
        const float change = __fmul_rn(rule.lr, rule.direction(g, state));
        param.at[j] = __fsub_rn(param.at[j], decays && R::DECOUPLED ? __fadd_rn(change, joining) : change);
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
    const double first = first_of(control[MOMENTUM], hyper[0]);
    const R rule({control[LR], control[UPDATE], control[CLIP_VALUE], {first, hyper[1], hyper[2], hyper[3]}});
    update_four(rule, vectors, control[SCALE], weight_decay, 4 * (256LL * blockIdx.x + threadIdx.x));
}

// Parts of a vector that is decided about and updated at most; fusion.py has the same number.
constexpr int MOST_PARTS = 2048;

// `decide` and the update in one cooperative grid: of each part, a span of blocks, the squares are summed; all wait; each
// thread block finds the same decision, and updates its parts. partials: a float for each part.
template <class R>
__device__ __forceinline__ void decide_and_update(
    float* params, const float* grads, float* vector0, float* vector1, float* vector2, float weight_decay, double hyper0,
    double hyper1, double hyper2, double hyper3, Value* weights, long long n, const float* tail, const double* rates,
    long long* cursor, double* control, double* history, int history_rows, int global_batch, double clip_norm,
    int growth_interval, double largest_loss_scale, double clip_value, int span, int parts, float* partials,
    int* barrier)
{
    __shared__ float nodes[MOST_PARTS + MOST_PARTS / 32];
    __shared__ Words words;
    __shared__ float scale;
    __shared__ bool applied;
    const Vectors vectors = {params, grads, {vector0, vector1, vector2}, weights, n};
    const Places at = {tail, rates, cursor, control, history, history_rows};
    const Policy policy = {global_batch, clip_norm, growth_interval, largest_loss_scale, clip_value};
    const int num_blocks = static_cast<int>(n / BLOCK), first_part = blockIdx.x, step = gridDim.x;
    const Before before(at);
    for (int part = first_part; part < parts; part += step) {
        const float own = squares_of(grads, span * part, span, num_blocks);
        if (threadIdx.x == 0) partials[part] = own;
    }
    grid_barrier(reinterpret_cast<unsigned*>(barrier));
    for (int i = threadIdx.x; i < parts; i += 256) nodes[i] = *static_cast<const volatile float*>(partials + i);
    __syncthreads();
    const float squared = tree_over(nodes, nodes + MOST_PARTS, parts);
    if (threadIdx.x == 0) {
        const Decision decision(squared, before, policy);
        if (blockIdx.x == 0) decision.write(before, policy, at);  // all blocks have read what was before
        const double first = first_of(before.momentum, hyper0);
        words = {decision.lr, decision.update, clip_value, {first, hyper1, hyper2, hyper3}};
        scale = decision.scale;
        applied = decision.applied;
    }
    __syncthreads();
    if (!applied) return;
    const R rule(words);
    for (int part = first_part; part < parts; part += step) {
        for (int block = 0; block < span; ++block) {
            const long long first = static_cast<long long>(span) * part + block;
            update_four(rule, vectors, scale, weight_decay, BLOCK * first + 4 * threadIdx.x);
        }
    }
}
