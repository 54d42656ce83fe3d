// What the parts of the scheduler share: the launch, its threads and warps, and who runs.
#pragma once

#define EMULATOR_VARIABLE
#include <setjmp.h>

#include <random>
#include <vector>

#include "context.hpp"
#include "scheduler.hpp"

namespace emulator {

enum Order : int { FORWARD, REVERSE, RANDOM };

constexpr unsigned WARP = 32, MAX_THREADS = 1024, SHARED_BYTES = 26 * PAGE_BYTES;

// What Python fills in, and reads after a failure.
struct Launch {
    const char* name;
    Call call;
    void** arguments;
    dim3 grid, block;
    size_t dynamic_bytes;
    const Shared* shared;
    int order;
    uint64_t seed;
    char message[1024];
    uintptr_t fault_address, program_counter;
};

struct Thread {
    uint3 index;
    unsigned number;
    uint64_t serial = 0;
    Fiber* fiber = nullptr;
    const char* waits_in = nullptr;  // null while it does not wait
    Site site = {};
    unsigned mask = 0;
    Execute execute = nullptr;
};

struct Warp {
    unsigned present, fresh, runnable;
    unsigned at_barrier = 0, exited = 0, posted = 0;
    void* posts[WARP] = {};
};

extern Launch* launch;
extern Thread threads[MAX_THREADS], *current;
extern Warp warps[MAX_THREADS / WARP];
extern unsigned num_threads, num_warps;
extern std::vector<Fiber*> idle;
extern std::minstd_rand randomness;
extern char* shared_end;  // an unreadable page
extern sigjmp_buf escape;  // back to the launch, from wherever a thread failed

inline Warp& warp_of(const Thread& thread) { return warps[thread.number / WARP]; }

void fiber_body();
void run_block();

[[noreturn]] void fail_stuck();

// While one lives, a fault of this thread of the process ends the launch and not the process.
class FaultsCaught {
   public:
    FaultsCaught();
    ~FaultsCaught();
};

}  // namespace emulator
