// What the parts of the scheduler share: the launch, its threads and warps, and who runs.
#pragma once

#define EMULATOR_VARIABLE
#include <setjmp.h>

#include <random>
#include <vector>

#include "coherence.hpp"
#include "context.hpp"
#include "scheduler.hpp"

namespace emulator {

enum Order : int { FORWARD, REVERSE, RANDOM, INTERLEAVED };

constexpr unsigned WARP = 32, SHARED_BYTES = 26 * PAGE_BYTES;

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
    int cooperative, flush_subnormals;
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
    unsigned* grid_state = nullptr;  // null while it does not wait for the grid
};

struct Warp {
    unsigned present, fresh, runnable;
    unsigned at_barrier = 0, exited = 0, posted = 0;
    void* posts[WARP] = {};
};

enum State { FRESH, RUNNABLE, AT_BARRIER, AT_GRID, EXITED };

// A block between its first and its last instruction.
struct Block {
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    State state = FRESH;
    View view;
    std::vector<char> shared;  // the contents of its shared memory while another block runs
};

extern Launch* launch;
extern Block* block;  // the one that runs
extern Thread *threads, *current;
extern Warp* warps;
extern unsigned num_threads, num_warps;
extern std::minstd_rand randomness;
extern char* shared_end;  // an unreadable page
extern sigjmp_buf escape;  // back to the launch, from wherever a thread failed

inline Warp& warp_of(const Thread& thread) { return warps[thread.number / WARP]; }

void forget_fibers();  // after a failure, which leaves them in the middle of things

uint3 index_of_block(uint64_t number);
std::vector<uint64_t>& shuffled(uint64_t num_blocks);  // the numbers of blocks in the order of this launch

void prepare(Block& to_prepare);
void enter(Block& to_enter, uint64_t number);
void begin_block();
void run_block();  // to its end, or until all its threads wait for the grid, or until another block goes first
void release_grid(std::vector<Block>& blocks);

void clear_shared();
void save_shared(std::vector<char>& to);
void load_shared(const std::vector<char>& from);

void yield();  // leaves the running block, perhaps
bool other_goes_first();

void run_in_turn(uint64_t num_blocks);
void run_together(uint64_t num_blocks);  // of a cooperative launch
void run_interleaved(uint64_t num_blocks);

[[noreturn]] void fail_stuck();
[[noreturn]] void fail_grid(const Block& other, uint64_t number);  // for which the current block waits in vain

// While one lives, a fault of this thread of the process ends the launch and not the process.
class FaultsCaught {
   public:
    FaultsCaught();
    ~FaultsCaught();
};

}  // namespace emulator
