// Fibers: stacks with an unreadable page below, and the switch from one to another.
#pragma once

#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstddef>
#include <cstdint>

namespace emulator {

constexpr size_t PAGE_BYTES = 4096;
constexpr unsigned MAX_THREADS = 1024;  // of a block
constexpr unsigned NUM_GUARDED = 8 * MAX_THREADS;  // stacks with an unreadable page, of which a process may not have many

#if defined(__x86_64__)

using Context = void*;  // the stack pointer; everything else that a call keeps lies on the stack

extern "C" void emulator_switch(Context* from, Context to);

inline void switch_context(Context& from, Context& to) { emulator_switch(&from, to); }

inline void make_context(Context& context, char* stack, size_t bytes, void (*body)()) {
    auto top = reinterpret_cast<uintptr_t*>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15});
    top[-1] = 0;
    top[-2] = reinterpret_cast<uintptr_t>(body);
    for (int saved = 3; saved <= 8; ++saved) top[-saved] = 0;
    context = top - 8;
}

#else

using Context = ucontext_t;

inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }

inline void make_context(Context& context, char* stack, size_t bytes, void (*body)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, body, 0);
}

#endif

struct Fiber {
    unsigned number;
    Context context;
    char* stack;
    size_t bytes;

    explicit Fiber(unsigned number) : number(number) {
        const size_t mapped = (is_small() ? 64 : 256) * 1024;
        auto base = static_cast<char*>(
            mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (number < NUM_GUARDED) mprotect(base, PAGE_BYTES, PROT_NONE);
        stack = base + PAGE_BYTES;
        // Tops at different distances from a page, or all stacks would share a few sets of the cache.
        bytes = mapped - PAGE_BYTES - number * 320 % PAGE_BYTES;
    }

    // Beyond the threads of one block, of which there are more at once in cooperative and interleaved launches alone.
    bool is_small() const { return number >= MAX_THREADS; }
};

}  // namespace emulator
