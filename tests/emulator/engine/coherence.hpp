// Device memory as blocks see it that run interleaved: what one writes reaches others only by fences and atomics.
//
// Each block has a view: pages that differ, or may differ, from the published memory. A page enters the view of a block
// at its first write there, and the views of all other blocks that have begun when a fence changes it, so that they go on
// to read what was there before. A fence publishes the bytes that the block has changed, and empties its view. Atomics act
// on published memory. What a block wrote after its last fence is published at the end of the launch.
//
// More is visible than the PTX memory model promises: a fence of one thread counts for its whole block, and atomics are
// seen at once by blocks that have not the page in their view.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <vector>

#include "context.hpp"

namespace emulator {

using Page = std::array<unsigned char, PAGE_BYTES>;

struct Viewed {
    std::shared_ptr<const Page> base;  // as it was when it entered the view: what differs was written by the block
    std::shared_ptr<const Page> now;   // while another block runs
};

using View = std::map<uintptr_t, Viewed>;  // by the page's address

void add_region(char* start, size_t bytes);
void remove_region(char* start);

void protect_memory();    // before an interleaved launch
void unprotect_memory();  // after it: everything is published

void switch_out(View& view);
void switch_in(const View& view);
void publish(View& own, const std::vector<View*>& others);  // those of blocks that have begun and not ended
void leave_unpublished(View& view);                         // until the end of the launch; the view is empty then

// Whether a write to `address` was refused because its page was not in `view`; it is then, and the write may go on.
bool admit_write(View& view, uintptr_t address);

void begin_coherent(View& view, uintptr_t address, size_t bytes);  // the bytes are as published, and may be changed
void end_coherent(View& view, uintptr_t address, size_t bytes);    // they are published

}  // namespace emulator
