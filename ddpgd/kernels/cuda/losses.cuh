// The losses: loss and gradient of a row in one thread, then the sums of a micro-batch in an order of its own.
#include "norm.cuh"
#include "value.cuh"
#include "words.cuh"

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

// A loss has row(...): the loss of a sample, whose gradient goes to dlogits; smoothing is 0 for those that have none.
struct CrossEntropy {
    // Shifted by the largest logit, no exponential overflows. A target's sum is 1, so the loss is log sum exp(shifted) less
    // the sum of target shifted; without smoothing, classes that are not the label play no part, were they infinite.
    static __device__ __forceinline__ RowLoss row(
        const float* logits, long long label, int num_classes, float smoothing, float scale, Value* dlogits)
    {
        const float each = smoothing / num_classes, own = 1.0f - smoothing;
        const int largest_at = first_largest(logits, num_classes);
        const float largest = logits[largest_at];
        float sum = 0.0f, of_label = 0.0f, of_all = 0.0f;
        for (int c = 0; c < num_classes; ++c) {
            const float shifted = logits[c] - largest;
            sum += expf(shifted);
            of_all += shifted;
            if (c == label) of_label = shifted;
        }
        for (int c = 0; c < num_classes; ++c) {
            const float probability = expf(logits[c] - largest) / sum;
            dlogits[c] = to_value((probability - each - (c == label ? own : 0.0f)) * scale);
        }
        const float of_target = smoothing == 0.0f ? of_label : own * of_label + each * of_all;
        return {logf(sum) - of_target, largest_at == label};
    }
};

struct MeanSquaredError {
    static __device__ __forceinline__ RowLoss row(
        const float* logits, long long label, int num_classes, float, float scale, Value* dlogits)
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

// The tail of micro-batch g from its chunks of rows, by the last of `chunks` thread blocks to finish: the tree over them.
// loss_sum and correct, in all threads, are those of `chunk`; `room` floats of `partials` are for a sum of a micro-batch.
__device__ __forceinline__ void add_chunks(
    float loss_sum, float correct, int samples, int g, int chunk, int chunks, int room, float* tail, float* partials,
    int* counters)
{
    float* const loss_sums = partials + 2LL * g * room;
    float* const corrects = loss_sums + room;
    if (threadIdx.x == 0) {
        loss_sums[chunk] = loss_sum;
        corrects[chunk] = correct;
    }
    if (!is_last(counters + g, chunks)) return;
    const float total = tree_over(loss_sums, loss_sums + chunks, chunks);
    const float hits = tree_over(corrects, corrects + chunks, chunks);
    write_tail(total, hits, samples, tail);
}

// Floats for the tree over `chunks` sums.
__device__ __forceinline__ int room_for(int chunks) { return chunks + (chunks + 31) / 32; }
