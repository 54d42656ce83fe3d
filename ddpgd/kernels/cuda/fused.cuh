// Small steps in few launches: neighbouring ops of a step together, with the bits that they have alone.
#include "losses.cuh"
#include "pixels.cuh"
#include "dense_products.cuh"
#include "multiplier.cuh"

#if defined(DDPGD_HAS_PRODUCTS)

// gather_normalise and the first layer's dense_forward.
template <class Multiplier>
__device__ __forceinline__ void gather_forward(
    const Place& place, const unsigned char* images, const unsigned char* labels, const long long* order,
    const long long* cursor, long long offset, float factor, float shift, Value* x, long long* y, const Value* weight,
    const float* bias, void* out, int num_rows, int num_inputs, int num_outputs, int activation)
{
    const long long* const samples = order + cursor[FIRST] + offset;
    const int row = place.x * Multiplier::Tile::ROWS + threadIdx.x;
    const bool is_first = place.y == 0;
    if (is_first && threadIdx.x < Multiplier::Tile::ROWS && row < num_rows) y[row] = labels[samples[row]];
    const Pixels inputs{images, samples, factor, shift, is_first ? x : nullptr, num_inputs};
    forward<Multiplier>(place, inputs, weight, bias, out, num_rows, num_inputs, num_outputs, activation);
}

// The place of a layer's tensors, and its first thread block.
struct LayerParams {
    const Value* x;
    const Value* dout;
    float* dweight;
    float* dbias;
    long long dweight_stride, dbias_stride, num_inputs, num_outputs, first_block;
};

// dense_backward_params of several layers: a thread block for each tile of each, micro-batches in z.
template <class Multiplier>
__device__ __forceinline__ void params_of_layers(
    const Place& place, const LayerParams* layers, int num_layers, int num_rows, int micro_batch)
{
    int at = num_layers - 1;
    while (place.x < layers[at].first_block) --at;
    const LayerParams layer = layers[at];
    const int num_inputs = static_cast<int>(layer.num_inputs), num_outputs = static_cast<int>(layer.num_outputs);
    const int block = place.x - static_cast<int>(layer.first_block);
    const int tiles_down = (num_inputs + Multiplier::Tile::ROWS - 1) / Multiplier::Tile::ROWS;
    params_tile<Multiplier>(
        block % tiles_down, block / tiles_down, place.z, layer.x, layer.dout, layer.dweight, layer.dbias, num_rows,
        micro_batch, num_inputs, num_outputs, layer.dweight_stride, layer.dbias_stride);
}

// Of logits that stay in shared memory.
template <int CLASSES>
struct LogitsEpilogue {
    const float* bias;
    float (*logits)[CLASSES];
    int num_classes;

    template <int N>
    __device__ __forceinline__ Pack<float, N> beside(int, int column) const {
        return load<N>(bias, column, num_classes);
    }

    __device__ __forceinline__ void store(int row, int column, const Pack<float, 1>& sum, const Pack<float, 1>& bias) const
    {
        if (column < num_classes) logits[row][column] = sum.at[0] + bias.at[0];
    }
};

// The last layer's dense_forward, the loss, and its dense_backward_input: 16 rows of a micro-batch and 128 columns of dx a
// thread block. Those of the first columns alone write dlogits and tails; logits stay where they are made.
template <class Loss>
__device__ __forceinline__ void head(
    const Place& place, const Value* x, const Value* weight, const float* bias, const long long* labels, int num_rows,
    int num_inputs, int num_classes, int micro_batch, int activation, float smoothing, const double* control,
    Value* dlogits, Value* dx, float* tails, long long tail_stride, float* partials, int* counters)
{
    constexpr int ROWS = 16, CLASSES = 16;
    using Forward = Multiplier<ROWS, CLASSES, true, false>;
    using Input = Multiplier<ROWS, 16, true, true>;
    using Tile = typename Input::Tile;
    extern __shared__ __align__(16) unsigned char shared_bytes[];
    __shared__ float logits[ROWS][CLASSES];
    __shared__ __align__(16) Value slopes[ROWS * Tile::LEFT_PITCH];
    const int thread = thread_of_block();
    const int g = place.z, begin = g * micro_batch;
    const int samples = min(micro_batch, num_rows - begin);
    const int chunks = (samples + ROWS - 1) / ROWS, chunk = place.x;
    if (chunk >= chunks) return;
    const int first_row = begin + chunk * ROWS, end_row = min(first_row + ROWS, begin + samples);
    const Matrix inputs{x, num_inputs};
    const Factor classes{weight, num_classes, 0, num_classes};
    const LogitsEpilogue<CLASSES> epilogue{bias, logits, num_classes};
    product<Forward, false>(inputs.rows(first_row, end_row), classes, num_inputs, false, epilogue, [](int, float) {});
    for (int i = thread; i < ROWS * Tile::LEFT_PITCH; i += NUM_THREADS) slopes[i] = to_value(0.0f);
    __syncthreads();
    RowLoss own = {0.0f, false};
    const int own_row = first_row + thread;
    if (own_row < end_row) {
        Value* const slope_of_row = slopes + thread * Tile::LEFT_PITCH;
        const float scale = static_cast<float>(control[LOSS_SCALE]);
        own = Loss::row(logits[thread], labels[own_row], num_classes, smoothing, scale, slope_of_row);
        for (int c = 0; c < num_classes && place.y == 0; ++c) dlogits[own_row * num_classes + c] = slope_of_row[c];
    }
    __syncthreads();

    // A sum of at most 16 terms is one slice: each warp has columns of its own.
    const int warp = thread / 32, lane = thread % 32;
    const int first_column = (place.y * (NUM_THREADS / 32) + warp) * Tile::COLUMNS;
    Value* const right = reinterpret_cast<Value*>(shared_bytes) + warp * Tile::RIGHT_PITCH * Tile::COLUMNS;
    const Factor columns{weight, num_classes, first_column, max(first_column, num_inputs)};
    const Copier<true, Tile::COLUMNS, Tile::DEPTH, Tile::RIGHT_PITCH, 32> copier(columns, lane);
    copier.copy(right, 0, num_classes);
    commit_pieces();
    wait_for_pieces<0>();
    __syncwarp();
    Input multiplier(lane);
    multiplier.add(slopes, right, num_classes);
#pragma unroll
    for (int i = 0; i < Input::NUM_SUMS; ++i) {
        const int row = first_row + multiplier.row(i), column = first_column + multiplier.column(i);
        if (row >= end_row || column >= num_inputs) continue;
        const size_t at = static_cast<size_t>(row) * num_inputs + column;
        dx[at] = to_value(multiplier.sums[i] * slope(to_float(x[at]), activation));
    }
    if (place.y != 0) return;
    const float loss_sum = block_sum(own.loss), correct = block_sum(own.correct ? 1.0f : 0.0f);
    add_chunks(
        loss_sum, correct, samples, g, chunk, chunks, room_for(place.num_x), tails + g * tail_stride, partials, counters);
}

#endif
