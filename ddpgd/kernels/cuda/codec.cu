// The codecs: blocks of 1,024 values, scaled by a power of two and rounded to the codes of a format, and back.
#include <cuda_fp16.h>
#include "philox.cuh"

constexpr int BLOCK = 1024;
constexpr int THREADS = 256;
constexpr int NOT_FINITE = 127;  // the exponent of a block that holds an infinity or a NaN

// Magnitudes under 2^-126 count as 0, said here because a compiler's option may flush some of them and not others.
__device__ __forceinline__ float flushed(float value)
{
    return (__float_as_uint(value) & 0x7f800000u) == 0 ? 0.0f : value;
}

__device__ __forceinline__ float power_of_two(int exponent) { return __uint_as_float((exponent + 127u) << 23); }

__device__ __forceinline__ bool is_finite(unsigned magnitude) { return magnitude < 0x7f800000u; }

__device__ __forceinline__ bool is_finite(float value) { return is_finite(__float_as_uint(value) & 0x7fffffffu); }

// A format: Code, the type of its codes; TOP, the largest magnitude of a scaled block; round(scaled, draw), the code of a
// value; widen(code), the value of a code. Formats that round at random say so, and get 24-bit draws.
struct Format {
    static constexpr bool AT_RANDOM = false;
};

template <class F>
__device__ __forceinline__ int block_exponent(unsigned largest)
{
    if (!is_finite(largest)) return NOT_FINITE;
    if (largest == 0) return 0;
    const int exponent = static_cast<int>(__float_as_uint(F::TOP) - largest) >> 23;
    return exponent < -126 ? -126 : exponent > 126 ? 126 : exponent;
}

template <class F>
__device__ __forceinline__ float decoded(typename F::Code code, int exponent)
{
    if (exponent == NOT_FINITE) return __uint_as_float(0x7fc00000u);
    return flushed(__fmul_rn(F::widen(code), power_of_two(-exponent)));
}

// The largest of the thread block's numbers.
__device__ __forceinline__ unsigned block_max(unsigned value)
{
    __shared__ unsigned of_warps[THREADS / 32];
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int span = 1; span < 32; span *= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, span));
    if (lane == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warps[lane % (THREADS / 32)];
#pragma unroll
    for (int span = 1; span < THREADS / 32; span *= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, span));
    return value;
}

// 24-bit draws for the BLOCK elements from place `offset` of the whole vector: a word serves two elements, and a block of
// Philox, four words, is made once.
struct Draws {
    unsigned long long* words;
    long long first_word;

    __device__ __forceinline__ Draws(unsigned long long* shared, const unsigned long long* key, long long offset)
        : words(shared), first_word(offset / 8 * 4)
    {
        const int block = threadIdx.x;
        if (block > BLOCK / 8) return;
        const Words four = philox(key, offset / 8 + block);
#pragma unroll
        for (int j = 0; j < 4; ++j) words[4 * block + j] = four.at[j];
    }

    __device__ __forceinline__ unsigned at(long long place) const
    {
        const unsigned long long word = words[place / 2 - first_word];
        return static_cast<unsigned>(word >> (place % 2 == 0 ? 8 : 40)) & 0xffffffu;
    }
};

// Returns the value to be coded in element i, 0 from n on.
__device__ __forceinline__ float wanted(const float* values, const float* residual, long long i, long long n)
{
    if (i >= n) return 0.0f;
    const float value = flushed(values[i]);
    return residual == nullptr ? value : flushed(__fadd_rn(value, flushed(residual[i])));
}

template <class F>
__device__ __forceinline__ void encode(
    const float* values, float* residual, const unsigned long long* key, long long offset,
    typename F::Code* codes, short* exponents, long long n)
{
    __shared__ unsigned long long words[F::AT_RANDOM ? BLOCK / 2 + 4 : 1];
    const long long begin = static_cast<long long>(BLOCK) * blockIdx.x;
    constexpr int EACH = BLOCK / THREADS;
    float own[EACH];
    unsigned largest = 0;
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        own[j] = wanted(values, residual, begin + j * THREADS + threadIdx.x, n);
        largest = max(largest, __float_as_uint(own[j]) & 0x7fffffffu);
    }
    unsigned draw[EACH] = {};
    if constexpr (F::AT_RANDOM) {
        const Draws draws(words, key, offset + begin);
        __syncthreads();
#pragma unroll
        for (int j = 0; j < EACH; ++j) draw[j] = draws.at(offset + begin + j * THREADS + threadIdx.x);
    }
    largest = block_max(largest);
    const int exponent = block_exponent<F>(largest);
    if (threadIdx.x == 0) exponents[blockIdx.x] = static_cast<short>(exponent);
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        const long long i = begin + j * THREADS + threadIdx.x;
        if (i >= n) continue;
        typename F::Code code = 0;
        if (is_finite(largest)) code = F::round(flushed(__fmul_rn(own[j], power_of_two(exponent))), draw[j]);
        codes[i] = code;
        if (residual == nullptr) continue;
        const float back = decoded<F>(code, exponent);
        // What came out not finite must not come again with the next values.
        residual[i] = is_finite(back) ? flushed(__fsub_rn(own[j], back)) : 0.0f;
    }
}

template <class F>
__device__ __forceinline__ void decode(
    const typename F::Code* codes, const short* exponents, float* values, long long n)
{
    const long long begin = static_cast<long long>(BLOCK) * blockIdx.x;
    const int exponent = exponents[blockIdx.x];
#pragma unroll
    for (int j = 0; j < BLOCK / THREADS; ++j) {
        const long long i = begin + j * THREADS + threadIdx.x;
        if (i < n) values[i] = decoded<F>(codes[i], exponent);
    }
}

// The kernels of a format have the format's name; see `WireOps.encode` and `decode`.
#define KERNELS(name, F)                                                                                              \
    extern "C" __global__ void __launch_bounds__(256) encode_##name(                                                  \
        const float* values, float* residual, const unsigned long long* key, long long offset, F::Code* codes,       \
        short* exponents, long long n)                                                                                \
    {                                                                                                                 \
        encode<F>(values, residual, key, offset, codes, exponents, n);                                                \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256) decode_##name(                                                  \
        const F::Code* codes, const short* exponents, float* values, long long n)                                    \
    {                                                                                                                 \
        decode<F>(codes, exponents, values, n);                                                                       \
    }

struct Float16 : Format {
    using Code = unsigned short;
    static constexpr float TOP = 0x1.fffffep14f;  // the last below 2^15

    static __device__ Code round(float scaled, unsigned) { return __half_as_ushort(__float2half_rn(scaled)); }

    static __device__ float widen(Code code) { return __half2float(__ushort_as_half(code)); }
};
KERNELS(float16, Float16)

struct BFloat16 : Format {
    using Code = unsigned short;
    static constexpr float TOP = 0x1.fffffep0f;  // the last below 2

    static __device__ Code round(float scaled, unsigned)
    {
        const unsigned bits = __float_as_uint(scaled);
        return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    }

    static __device__ float widen(Code code) { return __uint_as_float(static_cast<unsigned>(code) << 16); }
};
KERNELS(bfloat16, BFloat16)

struct Int8 : Format {
    using Code = signed char;
    static constexpr float TOP = 127;
    static constexpr bool AT_RANDOM = true;

    // In units of 2^-24, where adding the 24-bit draw is exact: 127 2^24 and a draw just fit 32 bits.
    static __device__ Code round(float scaled, unsigned draw)
    {
        return (__float2int_rn(__fmul_rn(scaled, 16777216.0f)) + static_cast<int>(draw)) >> 24;
    }

    static __device__ float widen(Code code) { return code; }
};
KERNELS(int8, Int8)
