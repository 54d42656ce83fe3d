// The decision about a summed gradient, alike on all ranks: a value that is made of the words before it and of the norm.
#include "words.cuh"

constexpr double LARGEST = 1.7976931348623157e308;

struct Policy {
    int global_batch;
    double clip_norm;
    int growth_interval;
    double largest_loss_scale, clip_value;
};

// Where the words of a step lie.
struct Places {
    const float* tail;
    const double* rates;
    long long* cursor;
    double* control;
    double* history;
    int history_rows;
};

// The words before a decision. Read early, they are there when the norm is.
struct Before {
    float tail[TAIL_WORDS];
    double control[CONTROL_WORDS];
    long long cursor[CURSOR_WORDS];
    double lr, momentum;

    __device__ __forceinline__ explicit Before(const Places& at)
    {
#pragma unroll
        for (int word = 0; word < TAIL_WORDS; ++word) tail[word] = at.tail[word];
#pragma unroll
        for (int word = 0; word < CONTROL_WORDS; ++word) control[word] = at.control[word];
#pragma unroll
        for (int word = 0; word < CURSOR_WORDS; ++word) cursor[word] = at.cursor[word];
        const double* const rates = at.rates + RATE_WORDS * cursor[STEP];
        lr = rates[RATE_LR] * control[LR_FACTOR];
        momentum = rates[RATE_MOMENTUM];
    }
};

struct Decision {
    double norm;
    bool applied, overflowed, halted;
    double lr, scale, update, loss_scale, good_steps;  // control's words after it

    __device__ __forceinline__ Decision(double squared, const Before& before, const Policy& policy)
    {
        const bool idle = before.tail[SAMPLES] == 0;
        const double scale_before = before.control[LOSS_SCALE];
        const double mean = idle ? 0 : 1 / (before.tail[SAMPLES] * scale_before);
        norm = sqrt(squared) * mean;
        const bool finite = norm <= LARGEST, told = before.tail[NON_FINITE] == 0, running = before.control[HALTED] == 0;
        const bool adapts = policy.growth_interval != 0;
        applied = finite && told && running && !idle;
        overflowed = !applied && !idle && told && running && adapts && scale_before > 1;
        halted = idle ? !running : !(applied || overflowed);
        lr = applied ? before.lr : before.control[LR];
        scale = idle ? 0 : before.control[SCALE];
        if (applied) scale = policy.clip_norm > 0 && norm > policy.clip_norm ? mean * (policy.clip_norm / norm) : mean;
        update = before.control[UPDATE] + applied;
        loss_scale = scale_before;
        good_steps = before.control[GOOD_STEPS];
        if (applied && adapts && ++good_steps >= policy.growth_interval) {
            loss_scale = fmin(2 * loss_scale, policy.largest_loss_scale);
            good_steps = 0;
        } else if (overflowed) {
            loss_scale /= 2;
            good_steps = 0;
        }
    }

    // By one thread, when no other still reads what was before.
    __device__ __forceinline__ void write(const Before& before, const Policy& policy, const Places& at) const
    {
        at.control[LR] = lr;
        at.control[MOMENTUM] = before.momentum;
        at.control[CLIP_VALUE] = policy.clip_value;
        at.control[SCALE] = scale;
        at.control[APPLY] = applied;
        at.control[UPDATE] = update;
        at.control[LOSS_SCALE] = loss_scale;
        at.control[GOOD_STEPS] = good_steps;
        at.control[HALTED] = halted;
        double* const row = at.history + before.cursor[RECORD] % at.history_rows * HISTORY_WORDS;
#pragma unroll
        for (int word = 0; word < TAIL_WORDS; ++word) row[word] = before.tail[word];
        row[HISTORY_LR] = before.lr;
        row[HISTORY_GRAD_NORM] = norm;
        row[HISTORY_APPLIED] = applied;
        row[HISTORY_OVERFLOWED] = overflowed;
        row[HISTORY_LOSS_SCALE] = before.control[LOSS_SCALE];
        at.cursor[FIRST] = before.cursor[FIRST] + policy.global_batch;
        at.cursor[STEP] = before.cursor[STEP] + 1;
        at.cursor[RECORD] = before.cursor[RECORD] + 1;
    }
};
