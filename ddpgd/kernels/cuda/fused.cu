// Neighbouring ops of a step in one kernel each.
#include "fused.cuh"

#if defined(DDPGD_HAS_PRODUCTS)

// clang-format off
#define KERNELS(ROWS, COLUMNS, ...)                                                                                    \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) gather_forward_##ROWS##x##COLUMNS(                       \
        const unsigned char* images, const unsigned char* labels, const long long* order, const long long* cursor,     \
        long long offset, float factor, float shift, Value* x, long long* y, const Value* weight, const float* bias,   \
        void* out, int num_rows, int num_inputs, int num_outputs, int activation) {                                    \
        gather_forward<Multiplier<ROWS, COLUMNS, true, false>>(                                                        \
            place_in_grid(), images, labels, order, cursor, offset, factor, shift, x, y, weight, bias, out, num_rows,  \
            num_inputs, num_outputs, activation);                                                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) params_of_layers_##ROWS##x##COLUMNS(                     \
        const LayerParams* layers, int num_layers, int num_rows, int micro_batch) {                                    \
        params_of_layers<Multiplier<ROWS, COLUMNS, false, false>>(                                                     \
            place_in_grid(), layers, num_layers, num_rows, micro_batch);                                               \
    }
// clang-format on

#include "tiles.cuh"

#define HEAD(name, Loss)                                                                                               \
    extern "C" __global__ void __launch_bounds__(NUM_THREADS, 1) head_##name(                                          \
        const Value* x, const Value* weight, const float* bias, const long long* labels, int num_rows, int num_inputs, \
        int num_classes, int micro_batch, int activation, float smoothing, const double* control, Value* dlogits,      \
        Value* dx, float* tails, long long tail_stride, float* partials, int* counters) {                              \
        head<Loss>(                                                                                                    \
            place_in_grid(), x, weight, bias, labels, num_rows, num_inputs, num_classes, micro_batch, activation,      \
            smoothing, control, dlogits, dx, tails, tail_stride, partials, counters);                                  \
    }
HEAD(cross_entropy, CrossEntropy)
HEAD(mean_squared_error, MeanSquaredError)

#endif
