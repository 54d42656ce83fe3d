// The three products of a dense layer, for anything that multiplies tiles. Rows in the place's x, columns in y, micro-batches in z.
#include "activation.cuh"
#include "dense_tile.cuh"
#include "place.cuh"

// The inputs of a layer as they lie in memory (R, K).
struct Matrix {
    const Value* values;
    int num_columns;

    __device__ __forceinline__ Factor rows(int first, int end) const { return {values, num_columns, first, end}; }
};

// out = activation(x weight + bias); logits, which have no activation, are float32 whatever Value is.
template <class Multiplier, class Inputs>
__device__ __forceinline__ void forward(const Place& place, const Inputs& x, const Value* weight, const float* bias,
                                        void* out, int num_rows, int num_inputs, int num_outputs, int activation) {
    using Tile = typename Multiplier::Tile;
    const int first_row = place.x * Tile::ROWS, first_column = place.y * Tile::COLUMNS;
    const Factor right{weight, num_outputs, first_column, num_outputs};
    auto store = [&](int row, int column, float sum) {
        row += first_row;
        column += first_column;
        if (row >= num_rows || column >= num_outputs) return;
        const size_t at = static_cast<size_t>(row) * num_outputs + column;
        const float value = activate(sum + bias[column], activation);
        if (activation == IDENTITY) {
            static_cast<float*>(out)[at] = value;
        } else {
            static_cast<Value*>(out)[at] = to_value(value);
        }
    };
    product<Multiplier, false>(x.rows(first_row, num_rows), right, num_inputs, false, store, [](int, float) {});
}

// The same of inputs as they lie in memory.
template <class Multiplier>
__device__ __forceinline__ void forward_matrix(const Place& place, const Value* x, const Value* weight, const float* bias,
                                               void* out, int num_rows, int num_inputs, int num_outputs,
                                               int activation) {
    const Matrix inputs{x, num_inputs};
    forward<Multiplier>(place, inputs, weight, bias, out, num_rows, num_inputs, num_outputs, activation);
}

// dweight[g] = x_g^T dout_g, dbias[g] = the sum of dout_g's rows, which the first row of tiles adds up.
template <class Multiplier>
__device__ __forceinline__ void params_tile(int tile_row, int tile_column, int g, const Value* x, const Value* dout,
                                            float* dweight, float* dbias, int num_rows, int micro_batch, int num_inputs,
                                            int num_outputs, long long dweight_stride, long long dbias_stride) {
    using Tile = typename Multiplier::Tile;
    const int first_row = tile_row * Tile::ROWS, first_column = tile_column * Tile::COLUMNS;
    const int first_sample = g * micro_batch;
    const int num_samples = min(micro_batch, num_rows - first_sample);
    const Factor left{x + static_cast<size_t>(first_sample) * num_inputs, num_inputs, first_row, num_inputs};
    const Factor right{dout + static_cast<size_t>(first_sample) * num_outputs, num_outputs, first_column, num_outputs};
    float* const dweight_out = dweight + g * dweight_stride;
    float* const dbias_out = dbias + g * dbias_stride;
    auto store = [&](int row, int column, float sum) {
        row += first_row;
        column += first_column;
        if (row < num_inputs && column < num_outputs) dweight_out[static_cast<size_t>(row) * num_outputs + column] = sum;
    };
    auto store_column = [&](int column, float sum) {
        column += first_column;
        if (column < num_outputs) dbias_out[column] = sum;
    };
    product<Multiplier, true>(left, right, num_samples, tile_row == 0, store, store_column);
}

// dx = (dout weight^T) * slope(x), x being what the activation put out.
template <class Multiplier>
__device__ __forceinline__ void input(const Place& place, const Value* dout, const Value* weight, const Value* x,
                                      Value* dx, int num_rows, int num_inputs, int num_outputs, int activation) {
    using Tile = typename Multiplier::Tile;
    const int first_row = place.x * Tile::ROWS, first_column = place.y * Tile::COLUMNS;
    const Factor left{dout, num_outputs, first_row, num_rows}, right{weight, num_outputs, first_column, num_inputs};
    auto store = [&](int row, int column, float sum) {
        row += first_row;
        column += first_column;
        if (row >= num_rows || column >= num_inputs) return;
        const size_t at = static_cast<size_t>(row) * num_inputs + column;
        dx[at] = to_value(sum * slope(to_float(x[at]), activation));
    };
    product<Multiplier, false>(left, right, num_outputs, false, store, [](int, float) {});
}
