// Dense layers: the three products, for every tile.
#include "dense_products.cuh"
#include "multiplier.cuh"

#if defined(DDPGD_HAS_PRODUCTS)

#define KERNELS(ROWS, COLUMNS, ...)                                                                                    \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) forward_##ROWS##x##COLUMNS(                              \
        const Value* x, const Value* weight, const float* bias, void* out, int num_rows, int num_inputs,               \
        int num_outputs, int activation) {                                                                             \
        forward_matrix<Multiplier<ROWS, COLUMNS, true, false>>(                                                        \
            place_in_grid(), x, weight, bias, out, num_rows, num_inputs, num_outputs, activation);                     \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) params_##ROWS##x##COLUMNS(                               \
        const Value* x, const Value* dout, float* dweight, float* dbias, int num_rows, int micro_batch,                \
        int num_inputs, int num_outputs, long long dweight_stride, long long dbias_stride) {                           \
        params_tile<Multiplier<ROWS, COLUMNS, false, false>>(                                                          \
            blockIdx.x, blockIdx.y, blockIdx.z, x, dout, dweight, dbias, num_rows, micro_batch, num_inputs,            \
            num_outputs, dweight_stride, dbias_stride);                                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) input_##ROWS##x##COLUMNS(                                \
        const Value* dout, const Value* weight, const Value* x, void* dx, int num_rows, int num_inputs,                \
        int num_outputs, int activation) {                                                                             \
        input<Multiplier<ROWS, COLUMNS, true, true>>(                                                                  \
            place_in_grid(), dout, weight, x, dx, num_rows, num_inputs, num_outputs, activation);                      \
    }

#include "tiles.cuh"

#endif
