// The blocks of a launch: one after another, or all at once where the launch is cooperative; their shared memory.
#include <string.h>

#include <algorithm>
#include <numeric>

#include "state.hpp"

namespace emulator {

uint3 block_index;
Block* block;

void prepare(Block& to_prepare) {
    to_prepare.warps.resize(num_warps);
    to_prepare.threads.resize(num_threads);
    for (unsigned t = 0; t < num_threads; ++t) {
        const uint3 index = {t % block_shape.x, t / block_shape.x % block_shape.y, t / block_shape.x / block_shape.y};
        to_prepare.threads[t] = Thread{index, t};
    }
}

uint3 index_of_block(uint64_t number) {
    const dim3 grid = grid_shape;
    return {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
}

void enter(Block& to_enter, uint64_t number) {
    block_index = index_of_block(number);
    block = &to_enter;
    threads = current = block->threads.data();
    warps = block->warps.data();
}

static size_t dynamic_used() { return (launch->dynamic_bytes + 15) / 16 * 16; }

void clear_shared() {
    for (size_t i = 0; i < launch->shared->count; ++i)
        memset(launch->shared->arrays[i].start, 0xFF, launch->shared->arrays[i].bytes);
    memset(dynamic_shared, 0xFF, dynamic_used());
}

void save_shared(std::vector<char>& to) {
    to.assign(dynamic_shared, dynamic_shared + dynamic_used());
    for (size_t i = 0; i < launch->shared->count; ++i) {
        const auto& array = launch->shared->arrays[i];
        to.insert(to.end(), array.start, array.start + array.bytes);
    }
}

// Arrays that were found since then are fresh.
void load_shared(const std::vector<char>& from) {
    memcpy(dynamic_shared, from.data(), dynamic_used());
    size_t loaded = dynamic_used();
    for (size_t i = 0; i < launch->shared->count; ++i) {
        const auto& array = launch->shared->arrays[i];
        if (loaded < from.size())
            memcpy(array.start, from.data() + loaded, array.bytes);
        else
            memset(array.start, 0xFF, array.bytes);
        loaded += array.bytes;
    }
}

std::vector<uint64_t>& shuffled(uint64_t num_blocks) {
    static std::vector<uint64_t> numbers;  // static because a failure jumps over destructors
    numbers.resize(num_blocks);
    std::iota(numbers.begin(), numbers.end(), uint64_t{0});
    if (launch->order == REVERSE) std::reverse(numbers.begin(), numbers.end());
    if (launch->order >= RANDOM) std::shuffle(numbers.begin(), numbers.end(), randomness);
    return numbers;
}

void run_in_turn(uint64_t num_blocks) {
    static Block alone;
    prepare(alone);
    for (const uint64_t number : shuffled(num_blocks)) {
        enter(alone, number);
        begin_block();
        run_block();
    }
}

// All blocks wait at one barrier, or the launch fails.
void release_grid(std::vector<Block>& blocks) {
    const auto waits = [](const Block& b) { return b.state == AT_GRID; };
    const auto first = std::find_if(blocks.begin(), blocks.end(), waits);
    if (first == blocks.end()) return;
    const Thread& wanted = first->threads[0];
    const auto matches = [&](const Thread& found) {
        return found.site == wanted.site && found.grid_state == wanted.grid_state;
    };
    for (Block& other : blocks) {
        if (!waits(other) || !matches(other.threads[0])) {
            enter(*first, first - blocks.begin());
            fail_grid(other, &other - blocks.data());
        }
    }
    View none;
    const auto state = reinterpret_cast<uintptr_t>(wanted.grid_state);
    begin_coherent(none, state, sizeof *wanted.grid_state);
    *wanted.grid_state ^= 0x80000000u;
    end_coherent(none, state, sizeof *wanted.grid_state);
    for (Block& each : blocks) each.state = AT_BARRIER;
}

void run_together(uint64_t num_blocks) {
    static std::vector<Block> blocks;
    blocks.assign(num_blocks, {});
    for (Block& each : blocks) prepare(each);
    while (!std::all_of(blocks.begin(), blocks.end(), [](const Block& b) { return b.state == EXITED; })) {
        for (const uint64_t number : shuffled(num_blocks)) {
            enter(blocks[number], number);
            block->state == FRESH ? begin_block() : load_shared(block->shared);
            run_block();
            save_shared(block->shared);
        }
        release_grid(blocks);
    }
}

}  // namespace emulator
