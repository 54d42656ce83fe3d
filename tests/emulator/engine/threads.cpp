// The threads of one block: fibers that run in rounds over the lanes of a warp, and wait for their warp or block.
#include <algorithm>
#include <deque>

#include "state.hpp"

namespace emulator {

uint3 thread_index;
unsigned lane_number, thread_number;
uint64_t thread_serial;
unsigned fiber_number;

Thread *threads, *current;
Warp* warps;
unsigned num_threads, num_warps;
static std::deque<Fiber> fibers;
static std::vector<Fiber*> idle, idle_small;  // small ones are for launches that have many at once
static unsigned round_warp, pass;  // the present round: its warp, and the lanes that it still has to run
static bool left;            // the block for another, while some of its threads can run
static Context main_context;

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
    fiber_number = thread.fiber->number;
}

static void fiber_body();

static Fiber* take_fiber() {
    std::vector<Fiber*>& from = idle.empty() ? idle_small : idle;
    if (from.empty()) {
        Fiber& made = fibers.emplace_back(unsigned(fibers.size()));
        make_context(made.context, made.stack, made.bytes, fiber_body);
        return &made;
    }
    Fiber* fiber = from.back();
    from.pop_back();
    return fiber;
}

static void give_back(Fiber* fiber) { (fiber->is_small() ? idle_small : idle).push_back(fiber); }

void forget_fibers() {
    idle.clear();
    idle_small.clear();
    for (auto fiber = fibers.rbegin(); fiber != fibers.rend(); ++fiber) {
        make_context(fiber->context, fiber->stack, fiber->bytes, fiber_body);
        give_back(&*fiber);
    }
}

static void begin(Thread& thread) {
    thread.fiber = take_fiber();
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
        begin(thread);
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
        give_back(current->fiber);
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

void yield() {
    if (!other_goes_first()) return;
    left = true;
    pass = 0;
    switch_context(current->fiber->context, main_context);
}

void barrier(Site site) {
    warp_of(*current).at_barrier |= 1u << lane_number;
    wait("__syncthreads", site);
}

unsigned active_lanes() {
    const Warp& warp = warp_of(*current);
    return warp.present & ~warp.exited;
}

void grid_barrier(unsigned* state, Site site) {
    if (!launch->cooperative) fail(site, "grid_barrier in a launch that is not cooperative");
    if (*state & 0x7FFFFFFF) fail(site, "grid_barrier with a state that was not zero: 0x%08x", *state);
    warp_of(*current).at_barrier |= 1u << lane_number;
    current->grid_state = state;
    wait("grid_barrier", site);
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
    if (launch->order >= RANDOM) {
        while (!left) {
            unsigned ready[MAX_THREADS / WARP], num_ready = 0;
            for (unsigned w = 0; w < num_warps; ++w)
                if (warps[w].runnable) ready[num_ready++] = w;
            if (!num_ready) return;
            run_warp(ready[randomness() % num_ready]);
        }
        return;
    }
    for (unsigned i = 0; i < num_warps; ++i) {
        const unsigned w = launch->order == FORWARD ? i : num_warps - 1 - i;
        while (warps[w].runnable) run_warp(w);
    }
}

static void check_barrier() {
    for (unsigned w = 0; w < num_warps; ++w)
        if (warps[w].at_barrier != warps[w].present) fail_stuck();
    for (unsigned t = 1; t < num_threads; ++t) {
        if (!(threads[t].site == threads[0].site)) fail_stuck();
        if (threads[t].grid_state != threads[0].grid_state) fail(threads[t].site, "grid_barrier with several states");
    }
}

static void release_barrier() {
    block->state = RUNNABLE;
    for (unsigned t = 0; t < num_threads; ++t) threads[t].grid_state = nullptr;
    for (unsigned w = 0; w < num_warps; ++w) {
        warps[w].runnable = warps[w].present;
        warps[w].at_barrier = 0;
    }
}

void begin_block() {
    clear_shared();
    for (unsigned w = 0; w < num_warps; ++w) {
        const unsigned lanes = std::min(WARP, num_threads - w * WARP);
        const unsigned all = lanes == WARP ? ~0u : (1u << lanes) - 1;
        warps[w] = Warp{all, all, all};
    }
    block->state = RUNNABLE;
}

static void end_block() {
    block->state = EXITED;
    const char* slack = dynamic_shared + launch->dynamic_bytes;
    for (; reinterpret_cast<uintptr_t>(slack) % 16; ++slack)
        if (*slack != '\xFF') fail({}, "a thread of this block wrote past the end of dynamic shared memory");
}

void run_block() {
    left = false;
    if (block->state == AT_BARRIER) release_barrier();
    for (;;) {
        run_until_all_wait();
        if (left) return;
        if (std::all_of(warps, warps + num_warps, [](const Warp& w) { return w.exited == w.present; })) break;
        check_barrier();
        block->state = threads[0].grid_state ? AT_GRID : AT_BARRIER;
        if (block->state == AT_GRID || other_goes_first()) return;
        release_barrier();
    }
    end_block();
}

}  // namespace emulator
