// What all ranks decide alike, by the thread block that finishes the squared norm: no step waits for the host.
#include "decision.cuh"
#include "norm.cuh"

extern "C" __global__ void __launch_bounds__(256) decide(
    const float* grads, int num_blocks, int span, float* partials, int* counter, const float* tail, const double* rates,
    long long* cursor, double* control, double* history, int history_rows, int global_batch, double clip_norm,
    int growth_interval, double largest_loss_scale, double clip_value)
{
    const Places at = {tail, rates, cursor, control, history, history_rows};
    const Policy policy = {global_batch, clip_norm, growth_interval, largest_loss_scale, clip_value};
    const Before before(at);
    float squared;
    if (!squared_norm(grads, num_blocks, span, partials, counter, squared) || threadIdx.x != 0) return;
    Decision(squared, before, policy).write(before, policy, at);
}

// The same from the squared norms of the blocks, by one thread block. spare: ceil(num_blocks / 32) floats.
extern "C" __global__ void __launch_bounds__(256) decide_by_norms(
    float* block_norms, int num_blocks, float* spare, const float* tail, const double* rates, long long* cursor,
    double* control, double* history, int history_rows, int global_batch, double clip_norm, int growth_interval,
    double largest_loss_scale, double clip_value)
{
    const Places at = {tail, rates, cursor, control, history, history_rows};
    const Policy policy = {global_batch, clip_norm, growth_interval, largest_loss_scale, clip_value};
    const Before before(at);
    const float squared = tree_over(block_norms, spare, num_blocks);
    __syncthreads();  // all threads have read what was before
    if (threadIdx.x == 0) Decision(squared, before, policy).write(before, policy, at);
}
