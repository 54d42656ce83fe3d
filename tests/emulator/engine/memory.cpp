// Memory of the fake device: whole pages between unreadable ones, so that what runs over the end faults.
#include <string.h>
#include <sys/mman.h>

#include "coherence.hpp"

using emulator::PAGE_BYTES;

#define EXPORT extern "C" __attribute__((visibility("default")))

// Aligned to 16 bytes and all ones, the slack up to 16 included.
EXPORT void* emulator_allocate(size_t bytes) {
    const size_t used = (bytes + 15) / 16 * 16, mapped = (used + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void* base = mmap(nullptr, mapped + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    char* first = static_cast<char*>(base) + PAGE_BYTES;
    if (mapped) mprotect(first, mapped, PROT_READ | PROT_WRITE);
    char* start = first + mapped - used;
    memset(start, 0xFF, used);
    emulator::add_region(first, mapped);
    return start;
}

EXPORT void emulator_free(char* start, size_t bytes) {
    const size_t used = (bytes + 15) / 16 * 16, mapped = (used + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    emulator::remove_region(start + used - mapped);
    munmap(start + used - mapped - PAGE_BYTES, mapped + 2 * PAGE_BYTES);
}
