// CUDA C++ for g++: qualifiers, built-in variables and types, barriers, atomics. Included before every unit's text.
#pragma once

#include <assert.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "scheduler.hpp"

#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __CUDA_ARCH__ 900
#define __NVCC__ 1

// `__shared__` itself is rewritten by the compiler's driver, after preprocessing.
#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...) EMULATOR_BOUNDS(__VA_ARGS__)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__

#define EMULATOR_VECTOR(scalar, name, align2, align4)                                                   \
    struct name##1 { scalar x; };                                                                       \
    struct alignas(align2) name##2 { scalar x, y; };                                                    \
    struct alignas(align4) name##4 { scalar x, y, z, w; };                                              \
    inline name##1 make_##name##1(scalar x) { return {x}; }                                             \
    inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                                \
    inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
#define EMULATOR_TRIPLE(scalar, name)                                                                   \
    struct name##3 { scalar x, y, z; };                                                                 \
    inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }

EMULATOR_VECTOR(signed char, char, 2, 4)
EMULATOR_VECTOR(unsigned char, uchar, 2, 4)
EMULATOR_VECTOR(short, short, 4, 8)
EMULATOR_VECTOR(unsigned short, ushort, 4, 8)
EMULATOR_VECTOR(int, int, 8, 16)
EMULATOR_VECTOR(unsigned, uint, 8, 16)
EMULATOR_VECTOR(float, float, 8, 16)
EMULATOR_VECTOR(long long, longlong, 16, 16)
EMULATOR_VECTOR(unsigned long long, ulonglong, 16, 16)
EMULATOR_VECTOR(double, double, 16, 16)
EMULATOR_TRIPLE(int, int)
EMULATOR_TRIPLE(float, float)
EMULATOR_TRIPLE(double, double)
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_shape
#define gridDim emulator::grid_shape
constexpr int warpSize = 32;

using Site = emulator::Site;

inline void __syncthreads(Site site = Site::here()) { emulator::barrier(site); }
inline void __threadfence() {
    asm volatile("" ::: "memory");
    if (emulator::interleaved) emulator::fence();
}
inline void __threadfence_block() { asm volatile("" ::: "memory"); }
inline void __threadfence_system() { __threadfence(); }
[[noreturn]] inline void __trap(Site site = Site::here()) { emulator::fail(site, "__trap"); }
#undef assert
#define assert(holds) ((holds) ? void() : emulator::fail(Site::here(), "assertion failed: %s", #holds))

namespace emulator {
// While one lives, no other block runs, and what stands at the address is what all blocks see there.
template <class T>
struct Atomic {
    T* const address;
    explicit Atomic(T* address) : address(address) {
        if (interleaved) begin_atomic(address, sizeof(T));
    }
    ~Atomic() {
        if (interleaved) end_atomic(address, sizeof(T));
    }
};
}  // namespace emulator

// Integers alone: a sum of floats in the order of arrival has no place in this project.
#define EMULATOR_ATOMIC(type, name, value)            \
    inline type atomic##name(type* to, type operand) { \
        const emulator::Atomic whole(to);              \
        const type old = *to;                          \
        *to = value;                                  \
        return old;                                   \
    }
#define EMULATOR_ATOMICS(type)                                 \
    EMULATOR_ATOMIC(type, Add, old + operand)                  \
    EMULATOR_ATOMIC(type, Exch, operand)                       \
    EMULATOR_ATOMIC(type, Max, operand > old ? operand : old)  \
    EMULATOR_ATOMIC(type, Min, operand < old ? operand : old)  \
    EMULATOR_ATOMIC(type, And, old& operand)                   \
    EMULATOR_ATOMIC(type, Or, old | operand)                   \
    EMULATOR_ATOMIC(type, Xor, old ^ operand)                  \
    inline type atomicCAS(type* to, type wanted, type value) { \
        const emulator::Atomic whole(to);                      \
        const type old = *to;                                  \
        if (old == wanted) *to = value;                        \
        return old;                                            \
    }
EMULATOR_ATOMICS(int)
EMULATOR_ATOMICS(unsigned)
EMULATOR_ATOMICS(unsigned long long)
EMULATOR_ATOMIC(int, Sub, old - operand)
EMULATOR_ATOMIC(unsigned, Sub, old - operand)
EMULATOR_ATOMIC(unsigned, Inc, old >= operand ? 0 : old + 1)
EMULATOR_ATOMIC(unsigned, Dec, old == 0 || old > operand ? operand : old - 1)

#include "math.hpp"
#include "warp.hpp"
#include "kernel.hpp"
