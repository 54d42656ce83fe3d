// The losses: per row loss and gradient in one thread, then the sums of a micro-batch in an order of its own.
#include "norm.cuh"
#include "value.cuh"
#include "words.cuh"

constexpr int ROWS = 128;

struct RowLoss {
    float loss;
    bool correct;
};

// The first largest logit's place; a NaN counts as largest.
__device__ __forceinline__ int first_largest(const float* logits, int num_classes)
{
    float best = logits[0];
    int at = 0;
    for (int c = 1; c < num_classes; ++c) {
        const float logit = logits[c];
        if (best == best && !(logit <= best)) {
            best = logit;
            at = c;
        }
    }
    return at;
}

struct CrossEntropy {
    // Shifted by the largest logit, no exponential overflows.
    static __device__ __forceinline__ RowLoss row(
        const float* logits, long long label, int num_classes, float scale, Value* dlogits)
    {
        const int largest_at = first_largest(logits, num_classes);
        const float largest = logits[largest_at];
        float sum = 0.0f, of_label = 0.0f;
        for (int c = 0; c < num_classes; ++c) {
            const float shifted = logits[c] - largest;
            sum += expf(shifted);
            if (c == label) of_label = shifted;
        }
        for (int c = 0; c < num_classes; ++c) {
            const float probability = expf(logits[c] - largest) / sum;
            dlogits[c] = to_value((probability - (c == label ? 1.0f : 0.0f)) * scale);
        }
        return {logf(sum) - of_label, largest_at == label};
    }
};

struct MeanSquaredError {
    static __device__ __forceinline__ RowLoss row(
        const float* logits, long long label, int num_classes, float scale, Value* dlogits)
    {
        const float slope = 2.0f / num_classes;
        float sum = 0.0f;
        for (int c = 0; c < num_classes; ++c) {
            const float error = logits[c] - (c == label ? 1.0f : 0.0f);
            sum = fmaf(error, error, sum);
            dlogits[c] = to_value(error * slope * scale);
        }
        return {sum / num_classes, first_largest(logits, num_classes) == label};
    }
};

// The micro-batch's tail by the whole thread block, of which thread w writes word w.
__device__ __forceinline__ void write_tail(float loss_sum, float correct, int samples, float* tail)
{
    const int word = threadIdx.x;
    if (word >= TAIL_WORDS) return;
    const bool finite = (__float_as_uint(loss_sum) & 0x7f800000u) != 0x7f800000u;
    float value = 0.0f;
    if (word == LOSS_SUM) value = loss_sum;
    if (word == SAMPLES) value = static_cast<float>(samples);
    if (word == CORRECT) value = correct;
    if (word == NON_FINITE) value = finite ? 0.0f : 1.0f;
    tail[word] = value;
}

// Thread block (c, g) takes rows c * ROWS... of micro-batch g; its last to finish adds up, by the tree over its chunks.
template <class Loss>
__device__ __forceinline__ void losses(
    const float* logits, const long long* labels, int num_rows, int num_classes, int micro_batch,
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
            logits + at, labels[row], num_classes, static_cast<float>(control[LOSS_SCALE]), dlogits + at);
    }
    const int room = gridDim.x + (gridDim.x + 31) / 32;
    float* const loss_sums = partials + 2 * g * room;
    float* const corrects = loss_sums + room;
    const float loss_sum = block_sum(own.loss);
    const float correct = block_sum(own.correct ? 1.0f : 0.0f);
    if (threadIdx.x == 0) {
        loss_sums[chunk] = loss_sum;
        corrects[chunk] = correct;
    }
    if (!is_last(counters + g, chunks)) return;
    const float total = tree_over(loss_sums, loss_sums + chunks, chunks);
    const float hits = tree_over(corrects, corrects + chunks, chunks);
    write_tail(total, hits, samples, tails + g * tail_stride);
}

extern "C" __global__ void __launch_bounds__(128) cross_entropy(
    const float* logits, const long long* labels, int num_rows, int num_classes, int micro_batch,
    const double* control, Value* dlogits, float* tails, long long tail_stride, float* partials, int* counters)
{
    losses<CrossEntropy>(
        logits, labels, num_rows, num_classes, micro_batch, control, dlogits, tails, tail_stride, partials, counters);
}

extern "C" __global__ void __launch_bounds__(128) mean_squared_error(
    const float* logits, const long long* labels, int num_rows, int num_classes, int micro_batch,
    const double* control, Value* dlogits, float* tails, long long tail_stride, float* partials, int* counters)
{
    losses<MeanSquaredError>(
        logits, labels, num_rows, num_classes, micro_batch, control, dlogits, tails, tail_stride, partials, counters);
}
