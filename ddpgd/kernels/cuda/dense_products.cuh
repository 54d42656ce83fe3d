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

// Of forward: a row's bias and activation. Rows and columns count from the tile's first.
struct ForwardEpilogue {
    const float* bias;
    void* out;
    int first_row, first_column, num_rows, num_outputs, activation;

    template <int N>
    __device__ __forceinline__ Pack<float, N> beside(int, int column) const {
        return load<N>(bias, first_column + column, num_outputs);
    }

    template <int N>
    __device__ __forceinline__ void store(int row, int column, const Pack<float, N>& sums,
                                          const Pack<float, N>& biases) const {
        if (first_row + row >= num_rows) return;
        const size_t begin = static_cast<size_t>(first_row + row) * num_outputs;
        Pack<float, N> values;
        Pack<Value, N> rounded;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            values.at[j] = activate(sums.at[j] + biases.at[j], activation);
            rounded.at[j] = to_value(values.at[j]);
        }
        if (activation == IDENTITY) {
            ::store<N>(values, static_cast<float*>(out) + begin, first_column + column, num_outputs);
        } else {
            ::store<N>(rounded, static_cast<Value*>(out) + begin, first_column + column, num_outputs);
        }
    }
};

// Of dweight.
struct ParamsEpilogue {
    float* out;
    int first_row, first_column, num_rows, num_columns;

    template <int N>
    __device__ __forceinline__ Pack<float, N> beside(int, int) const {
        return {};
    }

    template <int N>
    __device__ __forceinline__ void store(int row, int column, const Pack<float, N>& sums, const Pack<float, N>&) const {
        if (first_row + row >= num_rows) return;
        float* const begin = out + static_cast<size_t>(first_row + row) * num_columns;
        ::store<N>(sums, begin, first_column + column, num_columns);
    }
};

// Of dx: the slope where x is what the activation put out. Without an activation dx is float32: a part of a sum.
struct InputEpilogue {
    const Value* x;
    void* dx;
    int first_row, first_column, num_rows, num_inputs, activation;

    template <int N>
    __device__ __forceinline__ Pack<Value, N> beside(int row, int column) const {
        const bool there = first_row + row < num_rows;
        const Value* const begin = x + static_cast<size_t>(there ? first_row + row : 0) * num_inputs;
        return load<N>(begin, first_column + column, there ? num_inputs : 0);
    }

    template <int N>
    __device__ __forceinline__ void store(int row, int column, const Pack<float, N>& sums,
                                          const Pack<Value, N>& outputs) const {
        if (first_row + row >= num_rows) return;
        const size_t begin = static_cast<size_t>(first_row + row) * num_inputs;
        if (activation == IDENTITY) {
            ::store<N>(sums, static_cast<float*>(dx) + begin, first_column + column, num_inputs);
            return;
        }
        Pack<Value, N> values;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            values.at[j] = to_value(sums.at[j] * slope(to_float(outputs.at[j]), activation));
        }
        ::store<N>(values, static_cast<Value*>(dx) + begin, first_column + column, num_inputs);
    }
};

// out = activation(x weight + bias); logits, which have no activation, are float32 whatever Value is.
template <class Multiplier, class Inputs>
__device__ __forceinline__ void forward(const Place& place, const Inputs& x, const Value* weight, const float* bias,
                                        void* out, int num_rows, int num_inputs, int num_outputs, int activation) {
    using Tile = typename Multiplier::Tile;
    const int first_row = place.x * Tile::ROWS, first_column = place.y * Tile::COLUMNS;
    const Factor right{weight, num_outputs, first_column, num_outputs};
    const ForwardEpilogue epilogue{bias, out, first_row, first_column, num_rows, num_outputs, activation};
    product<Multiplier, false>(x.rows(first_row, num_rows), right, num_inputs, false, epilogue, [](int, float) {});
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
    const ParamsEpilogue epilogue{dweight_out, first_row, first_column, num_inputs, num_outputs};
    auto store_column = [&](int column, float sum) {
        column += first_column;
        if (column < num_outputs) dbias_out[column] = sum;
    };
    product<Multiplier, true>(left, right, num_samples, tile_row == 0, epilogue, store_column);
}

// dx = (dout weight^T) * slope(x), x being what the activation put out.
template <class Multiplier>
__device__ __forceinline__ void input(const Place& place, const Value* dout, const Value* weight, const Value* x,
                                      void* dx, int num_rows, int num_inputs, int num_outputs, int activation) {
    using Tile = typename Multiplier::Tile;
    const int first_row = place.x * Tile::ROWS, first_column = place.y * Tile::COLUMNS;
    const Factor left{dout, num_outputs, first_row, num_rows}, right{weight, num_outputs, first_column, num_inputs};
    const InputEpilogue epilogue{x, dx, first_row, first_column, num_rows, num_inputs, activation};
    product<Multiplier, false>(left, right, num_outputs, false, epilogue, [](int, float) {});
}
