// The order interleaved: several blocks begun at once, left at fences, atomics and barriers, each with its view of memory.
#include <algorithm>

#include "state.hpp"

namespace emulator {

bool interleaved;

constexpr size_t MAX_BEGUN = 8;  // where the launch is not cooperative
constexpr unsigned ONE_IN = 4;   // of the places where another block may go first

static std::vector<Block> blocks;
static std::vector<uint64_t> fresh, begun;  // numbers of blocks

bool other_goes_first() { return interleaved && randomness() % ONE_IN == 0; }

static void publish_own() {
    std::vector<View*> views;
    for (const uint64_t number : begun) views.push_back(&blocks[number].view);
    publish(block->view, views);
}

void fence() {
    yield();
    publish_own();
    yield();
}

void begin_atomic(void* address, size_t bytes) {
    begin_coherent(block->view, reinterpret_cast<uintptr_t>(address), bytes);
}

void end_atomic(void* address, size_t bytes) {
    end_coherent(block->view, reinterpret_cast<uintptr_t>(address), bytes);
    yield();
}

static void run(uint64_t number) {
    Block& to_run = blocks[number];
    enter(to_run, number);
    if (to_run.state == FRESH) {
        begin_block();
    } else {
        load_shared(to_run.shared);
        switch_in(to_run.view);
    }
    run_block();
    if (to_run.state == EXITED) {
        leave_unpublished(to_run.view);
        begun.erase(std::find(begun.begin(), begun.end(), number));
        to_run.threads = {};
        to_run.warps = {};
        return;
    }
    if (to_run.state == AT_GRID) publish_own();
    switch_out(to_run.view);
    save_shared(to_run.shared);
}

// A fresh block as long as there may be more of them: the later those go on that were left, the more is stale.
static void run_next() {
    if (!fresh.empty() && (launch->cooperative || begun.size() < MAX_BEGUN)) {
        const uint64_t number = fresh.back();
        fresh.pop_back();
        begun.push_back(number);
        prepare(blocks[number]);
        return run(number);
    }
    std::vector<uint64_t> ready;
    for (const uint64_t number : begun)
        if (blocks[number].state != AT_GRID) ready.push_back(number);
    if (!ready.empty()) return run(ready[randomness() % ready.size()]);
    for (const uint64_t number : begun) blocks[number].view.clear();  // all is published
    release_grid(blocks);
}

void run_interleaved(uint64_t num_blocks) {
    blocks.assign(num_blocks, {});
    fresh = shuffled(num_blocks);
    begun.clear();
    while (!fresh.empty() || !begun.empty()) run_next();
}

}  // namespace emulator
