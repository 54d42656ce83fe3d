// One launch: its blocks in turn, and what Python calls.
#include <sys/mman.h>

#include <algorithm>
#include <numeric>

#include "state.hpp"

namespace emulator {

uint3 block_index;
dim3 block_shape, grid_shape;
char *dynamic_shared, *shared_end;

Launch* launch;
std::minstd_rand randomness;
static Fiber fibers[MAX_THREADS];

static void run_blocks() {
    const dim3 grid = grid_shape;
    const uint64_t num_blocks = uint64_t{grid.x} * grid.y * grid.z;
    static std::vector<uint64_t> shuffled;  // static because a failure jumps over destructors
    shuffled.resize(launch->order == RANDOM ? num_blocks : 0);
    std::iota(shuffled.begin(), shuffled.end(), uint64_t{0});
    std::shuffle(shuffled.begin(), shuffled.end(), randomness);
    for (uint64_t i = 0; i < num_blocks; ++i) {
        const uint64_t b = launch->order == FORWARD ? i : launch->order == REVERSE ? num_blocks - 1 - i : shuffled[i];
        block_index = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
        run_block();
    }
}

static void prepare(Launch& to_launch) {
    if (!shared_end) {
        auto base = static_cast<char*>(mmap(nullptr, SHARED_BYTES + PAGE_BYTES, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        shared_end = base + SHARED_BYTES;
        mprotect(shared_end, PAGE_BYTES, PROT_NONE);
    }
    launch = &to_launch;
    grid_shape = launch->grid;
    block_shape = launch->block;
    num_threads = block_shape.x * block_shape.y * block_shape.z;
    num_warps = (num_threads + WARP - 1) / WARP;
    dynamic_shared = shared_end - (launch->dynamic_bytes + 15) / 16 * 16;
    randomness.seed(launch->seed + 1);
    for (unsigned t = 0; t < num_threads; ++t) {
        const uint3 index = {t % block_shape.x, t / block_shape.x % block_shape.y, t / block_shape.x / block_shape.y};
        threads[t] = Thread{index, t};
    }
    current = threads;
    if (idle.size() != MAX_THREADS) {  // the first launch, or a failure left fibers in the middle of things
        idle.clear();
        for (unsigned f = MAX_THREADS; f-- > 0;) {
            if (!fibers[f].stack) fibers[f].allocate(f);
            make_context(fibers[f].context, fibers[f].stack, fibers[f].bytes, fiber_body);
            idle.push_back(&fibers[f]);
        }
    }
}

}  // namespace emulator

using namespace emulator;

// 0, or 1 with `message` filled in. One launch at a time in a process.
extern "C" __attribute__((visibility("default"))) int emulator_launch(Launch* to_launch) {
    prepare(*to_launch);
    const FaultsCaught caught;
    if (sigsetjmp(escape, 1)) {
        idle.clear();
        return 1;
    }
    run_blocks();
    return 0;
}
