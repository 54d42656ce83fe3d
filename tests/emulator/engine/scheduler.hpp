// What a compiled unit asks of the scheduler: who it is, to wait for its block or its warp, and to fail.
#pragma once

#include <cstddef>
#include <cstdint>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulator {

// Where in the kernel's text a call stands: the default argument of every operation that waits.
struct Site {
    const char* file;
    int line;
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
    bool operator==(const Site& other) const { return line == other.line && file == other.file; }
};

using Call = void (*)(void** arguments);
using Execute = void (*)(void** posts, unsigned mask);

struct Shared {
    struct Array {
        char* start;
        size_t bytes;
    } arrays[256];
    size_t count;
};

#pragma GCC visibility push(default)

#if !defined(EMULATOR_VARIABLE)
#define EMULATOR_VARIABLE const  // to a thread; the scheduler changes them when it changes threads
#endif
extern EMULATOR_VARIABLE uint3 thread_index, block_index;
extern EMULATOR_VARIABLE dim3 block_shape, grid_shape;
extern EMULATOR_VARIABLE unsigned lane_number, thread_number;
extern EMULATOR_VARIABLE uint64_t thread_serial;  // no two threads of any launch share it
extern EMULATOR_VARIABLE unsigned fiber_number;   // no two threads that have begun and not ended share it
extern char* EMULATOR_VARIABLE dynamic_shared;

extern EMULATOR_VARIABLE bool interleaved;  // whether the other blocks must be told of fences and atomics

void barrier(Site site);
void fence();
void begin_atomic(void* address, size_t bytes);
void end_atomic(void* address, size_t bytes);

// Waits for all threads of all blocks of a cooperative launch. The highest bit of `state` flips, as on a GPU.
void grid_barrier(unsigned* state, Site site);

// Waits until every lane of `mask` has posted; the last one runs `execute` over all posts.
void collective(const char* name, Execute execute, unsigned mask, void* post, Site site);

unsigned active_lanes();

[[noreturn]] void fail(Site site, const char* format, ...) __attribute__((format(printf, 2, 3)));

#pragma GCC visibility pop

}  // namespace emulator
