// What all ranks decide alike, by the thread block that finishes the squared norm: no step waits for the host.
#include "norm.cuh"
#include "words.cuh"

constexpr double LARGEST = 1.7976931348623157e308;

struct Policy {
    int global_batch;
    double clip_norm;
    int growth_interval;
    double largest_loss_scale;
};

__device__ __forceinline__ void grow_loss_scale(const Policy& policy, double* control)
{
    if (policy.growth_interval == 0) return;
    control[GOOD_STEPS] += 1;
    if (control[GOOD_STEPS] < policy.growth_interval) return;
    control[LOSS_SCALE] = fmin(2 * control[LOSS_SCALE], policy.largest_loss_scale);
    control[GOOD_STEPS] = 0;
}

// True where the loss scale was too large.
__device__ __forceinline__ bool refuse(const Policy& policy, bool only_norm, double* control)
{
    control[APPLY] = 0;
    if (only_norm && policy.growth_interval != 0 && control[LOSS_SCALE] > 1) {
        control[LOSS_SCALE] /= 2;
        control[GOOD_STEPS] = 0;
        return true;
    }
    control[HALTED] = 1;
    return false;
}

__device__ __forceinline__ void decide_alone(
    double squared, const float* tail, const double* lrs, const Policy& policy, long long* cursor, double* control,
    double* row)
{
    const double loss_scale = control[LOSS_SCALE];
    const bool idle = tail[SAMPLES] == 0;
    const double scale = idle ? 0 : 1 / (tail[SAMPLES] * loss_scale);
    const double norm = sqrt(squared) * scale;
    const double lr = lrs[cursor[STEP]];
    const bool finite = norm <= LARGEST, told = tail[NON_FINITE] == 0, running = control[HALTED] == 0;
    const bool applied = finite && told && running && !idle;
    bool overflowed = false;
    if (idle) {
        control[SCALE] = 0;
        control[APPLY] = 0;
    } else if (applied) {
        control[LR] = lr;
        control[SCALE] = policy.clip_norm > 0 && norm > policy.clip_norm ? scale * (policy.clip_norm / norm) : scale;
        control[APPLY] = 1;
        control[UPDATE] += 1;
        grow_loss_scale(policy, control);
    } else {
        overflowed = refuse(policy, told && running, control);
    }
    for (int word = 0; word < TAIL_WORDS; ++word) row[word] = tail[word];
    row[HISTORY_LR] = lr;
    row[HISTORY_GRAD_NORM] = norm;
    row[HISTORY_APPLIED] = applied;
    row[HISTORY_OVERFLOWED] = overflowed;
    row[HISTORY_LOSS_SCALE] = loss_scale;
    cursor[FIRST] += policy.global_batch;
    cursor[STEP] += 1;
    cursor[RECORD] += 1;
}

extern "C" __global__ void __launch_bounds__(256) decide(
    const float* grads, int num_blocks, float* partials, int* counter, const float* tail, const double* lrs,
    long long* cursor, double* control, double* history, int history_rows, int global_batch, double clip_norm,
    int growth_interval, double largest_loss_scale)
{
    float squared;
    if (!squared_norm(grads, num_blocks, partials, counter, squared) || threadIdx.x != 0) return;
    const Policy policy = {global_batch, clip_norm, growth_interval, largest_loss_scale};
    double* const row = history + cursor[RECORD] % history_rows * HISTORY_WORDS;
    decide_alone(squared, tail, lrs, policy, cursor, control, row);
}
