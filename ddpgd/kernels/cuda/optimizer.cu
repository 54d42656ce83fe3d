// The kernels of updates, for each rule.
#include "update.cuh"

extern "C" __global__ void __launch_bounds__(256) round_weights(const float* params, Value* weights, long long n)
{
    const long long first = 4 * (256LL * blockIdx.x + threadIdx.x);
    store_weights(load<4>(params, first, n), weights, first, n);
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
        const double* rates, long long* cursor, double* control, double* history, int history_rows, int global_batch, \
        double clip_norm, int growth_interval, double largest_loss_scale, double clip_value, int span, int parts,     \
        float* partials, int* barrier)                                                                                \
    {                                                                                                                 \
        decide_and_update<R>(                                                                                         \
            params, grads, vector0, vector1, vector2, weight_decay, hyper0, hyper1, hyper2, hyper3, weights, n, tail, \
            rates, cursor, control, history, history_rows, global_batch, clip_norm, growth_interval,                  \
            largest_loss_scale, clip_value, span, parts, partials, barrier);                                          \
    }

#include "rules.cuh"
