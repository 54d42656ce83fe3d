// The codecs: blocks of 1,024 values, scaled by a power of two and rounded to float16, bfloat16 or int8, and the way back.
#include <cuda_fp16.h>
#include "philox.cuh"

constexpr int BLOCK = 1024;
constexpr int THREADS = 256;

// Magnitudes under 2^-126 count as 0, said here because a compiler's option may flush some of them and not others.
__device__ __forceinline__ float flushed(float value)
{
    return (__float_as_uint(value) & 0x7f800000u) == 0 ? 0.0f : value;
}

__device__ __forceinline__ float power_of_two(int exponent) { return __uint_as_float((exponent + 127u) << 23); }

__device__ __forceinline__ bool is_finite(unsigned magnitude) { return magnitude < 0x7f800000u; }

__device__ __forceinline__ bool is_finite(float value) { return is_finite(__float_as_uint(value) & 0x7fffffffu); }

struct Float16 {
    using Coded = unsigned short;
    static constexpr bool AT_RANDOM = false;
    static constexpr int OF_NON_FINITE = 0;

    // For a block's largest magnitude, given as its bits.
    static __device__ __forceinline__ int exponent(unsigned largest) { return 14 + 127 - static_cast<int>(largest >> 23); }

    static __device__ __forceinline__ Coded round(float scaled, unsigned)
    {
        return scaled == scaled ? __half_as_ushort(__float2half_rn(scaled)) : 0x7e00;
    }

    static __device__ __forceinline__ float wide(Coded coded) { return __half2float(__ushort_as_half(coded)); }
};

struct BFloat16 {
    using Coded = unsigned short;
    static constexpr bool AT_RANDOM = false;
    static constexpr int OF_NON_FINITE = 0;

    static __device__ __forceinline__ int exponent(unsigned largest) { return 127 - static_cast<int>(largest >> 23); }

    static __device__ __forceinline__ Coded round(float scaled, unsigned)
    {
        const unsigned bits = __float_as_uint(scaled);
        return scaled == scaled ? (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16 : 0x7fc0;
    }

    static __device__ __forceinline__ float wide(Coded coded)
    {
        return __uint_as_float(static_cast<unsigned>(coded) << 16);
    }
};

struct Int8 {
    using Coded = signed char;
    static constexpr bool AT_RANDOM = true;
    static constexpr int OF_NON_FINITE = 127;

    static __device__ __forceinline__ int exponent(unsigned largest)
    {
        const bool over_127 = (largest & 0x7fffffu) > 0x7e0000u;
        return (over_127 ? 5 : 6) + 127 - static_cast<int>(largest >> 23);
    }

    // In units of 2^-24, where adding the 24-bit draw is exact: 127 2^24 and a draw just fit 32 bits.
    static __device__ __forceinline__ Coded round(float scaled, unsigned draw)
    {
        return (__float2int_rn(__fmul_rn(scaled, 16777216.0f)) + static_cast<int>(draw)) >> 24;
    }

    static __device__ __forceinline__ float wide(Coded coded) { return coded; }
};

template <class Format>
__device__ __forceinline__ int block_exponent(unsigned largest)
{
    if (!is_finite(largest)) return Format::OF_NON_FINITE;
    if (largest == 0) return 0;
    const int exponent = Format::exponent(largest);
    return exponent < -126 ? -126 : exponent > 126 ? 126 : exponent;
}

template <class Format>
__device__ __forceinline__ float decoded(typename Format::Coded coded, int exponent)
{
    if (Format::AT_RANDOM && exponent == 127) return __uint_as_float(0x7fc00000u);
    return flushed(__fmul_rn(Format::wide(coded), power_of_two(-exponent)));
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

// 24-bit draws for the BLOCK elements from place `first` of the whole vector: a word serves two elements, and a block of
// Philox, four words, is made once.
struct Draws {
    unsigned long long* words;
    long long first_word;

    __device__ __forceinline__ Draws(unsigned long long* shared, const unsigned long long* key, long long first)
        : words(shared), first_word(first / 8 * 4)
    {
        const int block = threadIdx.x;
        if (block > BLOCK / 8) return;
        const Words four = philox(key, first / 8 + block);
#pragma unroll
        for (int j = 0; j < 4; ++j) words[4 * block + j] = four.at[j];
    }

    __device__ __forceinline__ unsigned at(long long place) const
    {
        const unsigned long long word = words[place / 2 - first_word];
        return static_cast<unsigned>(word >> (place % 2 == 0 ? 8 : 40)) & 0xffffffu;
    }
};

// What is to be coded in element i, 0 from n on.
__device__ __forceinline__ float wanted(const float* values, const float* residual, long long i, long long n)
{
    if (i >= n) return 0.0f;
    const float value = flushed(values[i]);
    return residual == nullptr ? value : flushed(__fadd_rn(value, flushed(residual[i])));
}

template <class Format>
__device__ __forceinline__ void encode(
    const float* values, float* residual, const unsigned long long* key, long long first,
    typename Format::Coded* coded, short* exponents, long long n)
{
    __shared__ unsigned long long words[Format::AT_RANDOM ? BLOCK / 2 + 4 : 1];
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
    if constexpr (Format::AT_RANDOM) {
        const Draws draws(words, key, first + begin);
        __syncthreads();
#pragma unroll
        for (int j = 0; j < EACH; ++j) draw[j] = draws.at(first + begin + j * THREADS + threadIdx.x);
    }
    largest = block_max(largest);
    const int exponent = block_exponent<Format>(largest);
    if (threadIdx.x == 0) exponents[blockIdx.x] = static_cast<short>(exponent);
    const bool codable = is_finite(largest) || !Format::AT_RANDOM;
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        const long long i = begin + j * THREADS + threadIdx.x;
        if (i >= n) continue;
        typename Format::Coded code = 0;
        if (codable) code = Format::round(flushed(__fmul_rn(own[j], power_of_two(exponent))), draw[j]);
        coded[i] = code;
        if (residual == nullptr) continue;
        const float back = decoded<Format>(code, exponent);
        // What came out not finite must not come again with the next values.
        residual[i] = is_finite(back) ? flushed(__fsub_rn(own[j], back)) : 0.0f;
    }
}

template <class Format>
__device__ __forceinline__ void decode(
    const typename Format::Coded* coded, const short* exponents, float* values, long long n)
{
    const long long begin = static_cast<long long>(BLOCK) * blockIdx.x;
    const int exponent = exponents[blockIdx.x];
#pragma unroll
    for (int j = 0; j < BLOCK / THREADS; ++j) {
        const long long i = begin + j * THREADS + threadIdx.x;
        if (i < n) values[i] = decoded<Format>(coded[i], exponent);
    }
}

extern "C" __global__ void __launch_bounds__(256) encode_float16(
    const float* values, float* residual, unsigned short* coded, short* exponents, long long n)
{
    encode<Float16>(values, residual, nullptr, 0, coded, exponents, n);
}

extern "C" __global__ void __launch_bounds__(256) encode_bfloat16(
    const float* values, float* residual, unsigned short* coded, short* exponents, long long n)
{
    encode<BFloat16>(values, residual, nullptr, 0, coded, exponents, n);
}

extern "C" __global__ void __launch_bounds__(256) encode_int8(
    const float* values, float* residual, const unsigned long long* key, long long first, signed char* coded,
    short* exponents, long long n)
{
    encode<Int8>(values, residual, key, first, coded, exponents, n);
}

extern "C" __global__ void __launch_bounds__(256) decode_float16(
    const unsigned short* coded, const short* exponents, float* values, long long n)
{
    decode<Float16>(coded, exponents, values, n);
}

extern "C" __global__ void __launch_bounds__(256) decode_bfloat16(
    const unsigned short* coded, const short* exponents, float* values, long long n)
{
    decode<BFloat16>(coded, exponents, values, n);
}

extern "C" __global__ void __launch_bounds__(256) decode_int8(
    const signed char* coded, const short* exponents, float* values, long long n)
{
    decode<Int8>(coded, exponents, values, n);
}
