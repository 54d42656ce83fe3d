// Fibers: stacks with an unreadable page below, and the switch from one to another.
#pragma once

#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstddef>
#include <cstdint>

namespace emulator {

constexpr size_t STACK_BYTES = 256 * 1024, PAGE_BYTES = 4096;

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
    Context context;
    char* stack = nullptr;
    size_t bytes = 0;

    void allocate(unsigned number) {
        auto base = static_cast<char*>(
            mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        mprotect(base, PAGE_BYTES, PROT_NONE);
        stack = base + PAGE_BYTES;
        // Tops at different distances from a page, or all stacks would share a few sets of the cache.
        bytes = STACK_BYTES - PAGE_BYTES - number * 320 % PAGE_BYTES;
    }
};

}  // namespace emulator
