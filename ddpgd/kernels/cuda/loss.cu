// The losses of a batch's logits.
#include "losses.cuh"

constexpr int ROWS = 128;

// Thread block (c, g) takes rows c * ROWS... of micro-batch g; its last to finish adds up, by the tree over its chunks.
template <class Loss>
__device__ __forceinline__ void losses(
    const float* logits, const long long* labels, int num_rows, int num_classes, int micro_batch, float smoothing,
    const double* control, Value* dlogits, float* tails, long long tail_stride, float* partials, int* counters)
{
    const long long g = blockIdx.y, begin = g * micro_batch;
    const long long rest = num_rows - begin;
    const int samples = static_cast<int>(rest < micro_batch ? rest : micro_batch);
    const int chunks = (samples + ROWS - 1) / ROWS, chunk = blockIdx.x;
    if (chunk >= chunks) return;
    const int within = chunk * ROWS + threadIdx.x;
    RowLoss own = {0.0f, false};
    if (within < samples) {
        const long long row = begin + within, at = row * num_classes;
        own = Loss::row(
            logits + at, labels[row], num_classes, smoothing, static_cast<float>(control[LOSS_SCALE]), dlogits + at);
    }
    const float loss_sum = block_sum(own.loss);
    const float correct = block_sum(own.correct ? 1.0f : 0.0f);
    add_chunks(
        loss_sum, correct, samples, g, chunk, chunks, room_for(gridDim.x), tails + g * tail_stride, partials, counters);
}

extern "C" __global__ void __launch_bounds__(128) cross_entropy(
    const float* logits, const long long* labels, int num_rows, int num_classes, int micro_batch, float smoothing,
    const double* control, Value* dlogits, float* tails, long long tail_stride, float* partials, int* counters)
{
    losses<CrossEntropy>(
        logits, labels, num_rows, num_classes, micro_batch, smoothing, control, dlogits, tails, tail_stride, partials,
        counters);
}

extern "C" __global__ void __launch_bounds__(128) mean_squared_error(
    const float* logits, const long long* labels, int num_rows, int num_classes, int micro_batch, float smoothing,
    const double* control, Value* dlogits, float* tails, long long tail_stride, float* partials, int* counters)
{
    losses<MeanSquaredError>(
        logits, labels, num_rows, num_classes, micro_batch, smoothing, control, dlogits, tails, tail_stride, partials,
        counters);
}
