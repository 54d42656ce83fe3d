// The scheduler: runs the blocks of a launch in turn and the threads of a block as fibers of one OS thread.
#define EMULATOR_VARIABLE
#include "scheduler.hpp"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "context.hpp"

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

uint3 thread_index, block_index;
dim3 block_shape, grid_shape;
unsigned lane_number, thread_number;
uint64_t thread_serial;
char* dynamic_shared;

static Launch* launch;
static Thread threads[MAX_THREADS], *current;
static Warp warps[MAX_THREADS / WARP];
static unsigned num_threads, num_warps;
static unsigned round_warp, pass;  // the present round: its warp, and the lanes that it still has to run
static Fiber fibers[MAX_THREADS];
static std::vector<Fiber*> idle;
static Context main_context;
static sigjmp_buf escape;
static char* shared_end;  // an unreadable page
static std::minstd_rand randomness;
static pthread_t owner;

static Warp& warp_of(const Thread& thread) { return warps[thread.number / WARP]; }

static int describe(char* to, size_t size, const Thread& thread) {
    return snprintf(to, size, "thread (%u, %u, %u)", thread.index.x, thread.index.y, thread.index.z);
}

static const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int write_where(char* to, size_t size) {
    int n = snprintf(to, size, "%s, block (%u, %u, %u), ", launch->name, block_index.x, block_index.y, block_index.z);
    return n + describe(to + n, size - n, *current);
}

void fail(Site site, const char* format, ...) {
    char* to = launch->message;
    const size_t size = sizeof launch->message;
    int n = write_where(to, size);
    if (site.file) n += snprintf(to + n, size - n, ", %s:%d", base_name(site.file), site.line);
    n += snprintf(to + n, size - n, ": ");
    va_list values;
    va_start(values, format);
    vsnprintf(to + n, size - n, format, values);
    va_end(values);
    siglongjmp(escape, 1);
}

// Which lane of `lanes` comes next in the order of this launch.
static unsigned pick(unsigned lanes) {
    if (launch->order == FORWARD) return __builtin_ctz(lanes);
    if (launch->order == REVERSE) return 31 - __builtin_clz(lanes);
    const unsigned turn = randomness() % WARP;
    const unsigned turned = lanes >> turn | lanes << (WARP - turn) % WARP;
    return (__builtin_ctz(turned) + turn) % WARP;
}

static void enter(Thread& thread) {
    current = &thread;
    thread_index = thread.index;
    thread_number = thread.number;
    lane_number = thread.number % WARP;
    thread_serial = thread.serial;
}

static void begin(Thread& thread, Fiber* fiber) {
    thread.fiber = fiber;
    warp_of(thread).fresh &= ~(1u << thread.number % WARP);
    static uint64_t serial = 0;
    thread.serial = ++serial;
    enter(thread);
}

// The next of the round, made current; null when the round is over.
static Fiber* next_of_round() {
    if (!pass) return nullptr;
    const unsigned lane = pick(pass), bit = 1u << lane;
    pass &= ~bit;
    Thread& thread = threads[round_warp * WARP + lane];
    if (warps[round_warp].fresh & bit) {
        begin(thread, idle.back());
        idle.pop_back();
    } else {
        enter(thread);
    }
    return thread.fiber;
}

static void leave(Fiber* from) {
    Fiber* next = next_of_round();
    // A fiber whose thread ended is the first to be idle: it goes on with a fresh thread, and nothing is switched.
    if (next != from) switch_context(from->context, next ? next->context : main_context);
}

static void fiber_body() {
    for (;;) {
        launch->call(launch->arguments);
        Warp& warp = warp_of(*current);
        warp.exited |= 1u << lane_number;
        warp.runnable &= ~(1u << lane_number);
        idle.push_back(current->fiber);
        leave(current->fiber);
    }
}

static void wait(const char* name, Site site) {
    Thread& thread = *current;
    thread.waits_in = name;
    thread.site = site;
    warp_of(thread).runnable &= ~(1u << lane_number);
    leave(thread.fiber);
    thread.waits_in = nullptr;
}

void barrier(Site site) {
    warp_of(*current).at_barrier |= 1u << lane_number;
    wait("__syncthreads", site);
}

unsigned active_lanes() {
    const Warp& warp = warp_of(*current);
    return warp.present & ~warp.exited;
}

void collective(const char* name, Execute execute, unsigned mask, void* post, Site site) {
    Warp& warp = warp_of(*current);
    const unsigned own = 1u << lane_number;
    if (!(mask & own)) fail(site, "%s with mask 0x%08x, which lacks the calling lane %u", name, mask, lane_number);
    mask &= warp.present;
    if (mask & warp.exited)
        fail(site, "%s with mask 0x%08x, of which lanes 0x%08x have exited", name, mask, mask & warp.exited);
    const Thread* lanes = threads + current->number / WARP * WARP;
    const auto refuse_other = [&](const Thread& other) {
        if (other.mask != mask || other.execute != execute || !(other.site == site))
            fail(site, "%s with mask 0x%08x, but lane %u waits in %s with mask 0x%08x at line %d", name, mask,
                 other.number % WARP, other.waits_in, other.mask, other.site.line);
    };
    const unsigned before = warp.posted & mask;
    if (before && lanes[__builtin_ctz(before)].mask & own) refuse_other(lanes[__builtin_ctz(before)]);
    warp.posts[lane_number] = post;
    warp.posted |= own;
    current->mask = mask;
    // A lane that still waits for a smaller group, without this lane, will come later.
    bool complete = (warp.posted & mask) == mask;
    for (unsigned others = complete ? before : 0; others; others &= others - 1)
        complete = complete && lanes[__builtin_ctz(others)].mask == mask;
    if (!complete) {
        current->execute = execute;
        wait(name, site);
        return;
    }
    for (unsigned others = before; others; others &= others - 1) refuse_other(lanes[__builtin_ctz(others)]);
    warp.posted &= ~mask;
    warp.runnable |= mask;
    execute(warp.posts, mask);
}

// One round: every lane of a warp that can run does so until it waits or ends.
static void run_warp(unsigned number) {
    round_warp = number;
    pass = warps[number].runnable;
    while (Fiber* next = next_of_round()) switch_context(main_context, next->context);
}

// Each warp runs as far ahead of the others as it can, because that is where a missing barrier shows.
static void run_until_all_wait() {
    if (launch->order == RANDOM) {
        for (;;) {
            unsigned ready[MAX_THREADS / WARP], num_ready = 0;
            for (unsigned w = 0; w < num_warps; ++w)
                if (warps[w].runnable) ready[num_ready++] = w;
            if (!num_ready) return;
            run_warp(ready[randomness() % num_ready]);
        }
    }
    for (unsigned i = 0; i < num_warps; ++i) {
        const unsigned w = launch->order == FORWARD ? i : num_warps - 1 - i;
        while (warps[w].runnable) run_warp(w);
    }
}

// Nothing can run and not all are at one barrier: name one thread that waits and one for which it waits in vain.
[[noreturn]] static void fail_stuck() {
    Thread* waiting = nullptr;
    for (unsigned t = 0; t < num_threads && !waiting; ++t)
        if (threads[t].waits_in) waiting = &threads[t];
    char other[256] = "";
    for (unsigned t = 0; t < num_threads && !*other; ++t) {
        const Thread& thread = threads[t];
        if (thread.waits_in && thread.waits_in == waiting->waits_in && thread.site == waiting->site) continue;
        int n = describe(other, sizeof other, thread);
        if (thread.waits_in)
            snprintf(other + n, sizeof other - n, " waits in %s at line %d", thread.waits_in, thread.site.line);
        else
            snprintf(other + n, sizeof other - n, " has exited");
    }
    current = waiting;
    fail(waiting->site, "divergent: it waits in %s, but %s", waiting->waits_in, *other ? other : "not all lanes come");
}

static void release_barrier() {
    for (unsigned w = 0; w < num_warps; ++w)
        if (warps[w].at_barrier != warps[w].present) fail_stuck();
    for (unsigned t = 1; t < num_threads; ++t)
        if (!(threads[t].site == threads[0].site)) fail_stuck();
    for (unsigned w = 0; w < num_warps; ++w) {
        warps[w].runnable = warps[w].present;
        warps[w].at_barrier = 0;
    }
}

static void run_block() {
    for (size_t i = 0; i < launch->shared->count; ++i)
        memset(launch->shared->arrays[i].start, 0xFF, launch->shared->arrays[i].bytes);
    memset(dynamic_shared, 0xFF, (launch->dynamic_bytes + 15) / 16 * 16);
    for (unsigned w = 0; w < num_warps; ++w) {
        const unsigned lanes = std::min(WARP, num_threads - w * WARP);
        const unsigned all = lanes == WARP ? ~0u : (1u << lanes) - 1;
        warps[w] = Warp{all, all, all};
    }
    for (;;) {
        run_until_all_wait();
        if (std::all_of(warps, warps + num_warps, [](const Warp& w) { return w.exited == w.present; })) break;
        release_barrier();
    }
    const char* slack = dynamic_shared + launch->dynamic_bytes;
    for (; reinterpret_cast<uintptr_t>(slack) % 16; ++slack)
        if (*slack != '\xFF') fail({}, "a thread of this block wrote past the end of dynamic shared memory");
}

static void run_blocks() {
    const dim3 grid = grid_shape;
    const uint64_t num_blocks = uint64_t{grid.x} * grid.y * grid.z;
    std::vector<uint64_t> shuffled(launch->order == RANDOM ? num_blocks : 0);
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

constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
static struct sigaction before[std::size(FAULTS)];

static void on_fault(int number, siginfo_t* info, [[maybe_unused]] void* context) {
    if (!pthread_equal(pthread_self(), owner)) {
        signal(number, SIG_DFL);
        return;
    }
    launch->fault_address = number == SIGSEGV || number == SIGBUS ? reinterpret_cast<uintptr_t>(info->si_addr) : 0;
#if defined(__x86_64__)
    launch->program_counter = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
#endif
    const auto fault = reinterpret_cast<char*>(launch->fault_address);
    const char* stack = current->fiber ? current->fiber->stack : nullptr;
    const char* what = number == SIGILL   ? "index outside an array, misaligned address, or __trap"
                       : number == SIGFPE ? "integer division by zero"
                       : stack && fault >= stack - PAGE_BYTES && fault < stack ? "stack overflow"
                       : fault >= shared_end && fault < shared_end + PAGE_BYTES
                           ? "access past the end of dynamic shared memory"
                           : "illegal memory access";
    fail({}, "%s", what);
}

}  // namespace emulator

using namespace emulator;

#define EXPORT extern "C" __attribute__((visibility("default")))

// 0, or 1 with `message` filled in. One launch at a time in a process.
EXPORT int emulator_launch(Launch* to_launch) {
    prepare(*to_launch);
    owner = pthread_self();
    alignas(16) static char signal_stack[64 * 1024];
    stack_t stack = {.ss_sp = signal_stack, .ss_flags = 0, .ss_size = sizeof signal_stack}, stack_before;
    sigaltstack(&stack, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (size_t i = 0; i < std::size(FAULTS); ++i) sigaction(FAULTS[i], &action, &before[i]);
    volatile int failed = sigsetjmp(escape, 1);
    if (failed)
        idle.clear();
    else
        run_blocks();
    for (size_t i = 0; i < std::size(FAULTS); ++i) sigaction(FAULTS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
    return failed;
}

// Memory that ends at an unreadable page: 16 bytes aligned, all ones, the slack up to 16 included.
EXPORT void* emulator_allocate(size_t bytes) {
    const size_t used = (bytes + 15) / 16 * 16, mapped = (used + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void* base = mmap(nullptr, mapped + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    char* first = static_cast<char*>(base) + PAGE_BYTES;
    if (mapped) mprotect(first, mapped, PROT_READ | PROT_WRITE);
    char* start = first + mapped - used;
    memset(start, 0xFF, used);
    return start;
}

EXPORT void emulator_free(char* start, size_t bytes) {
    const size_t used = (bytes + 15) / 16 * 16, mapped = (used + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    munmap(start + used - mapped - PAGE_BYTES, mapped + 2 * PAGE_BYTES);
}
