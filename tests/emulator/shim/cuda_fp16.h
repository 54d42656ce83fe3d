// Stand-in for CUDA's cuda_fp16.h: __half and __half2 over _Float16, each operation rounded to nearest even.
#pragma once

struct __half {
    static constexpr const char* EMULATOR_NAME = "float16";
    _Float16 value;
    __half() = default;
    explicit __half(_Float16 value) : value(value) {}
    __half(float value) : value(_Float16(value)) {}
    operator float() const { return float(value); }
};
struct alignas(4) __half2 {
    __half x, y;
};
using half = __half;
using half2 = __half2;

inline __half __float2half(float a) { return __half(a); }
inline __half __float2half_rn(float a) { return __half(a); }
inline __half __double2half(double a) { return __half(_Float16(a)); }
inline float __half2float(__half a) { return float(a.value); }
inline unsigned short __half_as_ushort(__half a) { return emulator_bits<unsigned short>(a.value); }
inline short __half_as_short(__half a) { return emulator_bits<short>(a.value); }
inline __half __ushort_as_half(unsigned short a) { return __half(emulator_bits<_Float16>(a)); }
inline __half __short_as_half(short a) { return __half(emulator_bits<_Float16>(a)); }

inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
inline __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
inline __half2 __float22half2_rn(float2 a) { return {__half(a.x), __half(a.y)}; }
inline __half2 __float2half2_rn(float a) { return {__half(a), __half(a)}; }
inline float2 __half22float2(__half2 a) { return {float(a.x), float(a.y)}; }
inline __half __low2half(__half2 a) { return a.x; }
inline __half __high2half(__half2 a) { return a.y; }
inline float __low2float(__half2 a) { return float(a.x); }
inline float __high2float(__half2 a) { return float(a.y); }

// Rounding to float first changes nothing: its 24 bits are more than twice the 11 of a half.
inline __half __hadd(__half a, __half b) { return __half(float(a) + float(b)); }
inline __half __hsub(__half a, __half b) { return __half(float(a) - float(b)); }
inline __half __hmul(__half a, __half b) { return __half(float(a) * float(b)); }
inline __half __hdiv(__half a, __half b) { return __half(float(a) / float(b)); }
inline __half operator+(__half a, __half b) { return __hadd(a, b); }
inline __half operator-(__half a, __half b) { return __hsub(a, b); }
inline __half operator*(__half a, __half b) { return __hmul(a, b); }
inline __half operator/(__half a, __half b) { return __hdiv(a, b); }
inline __half __hneg(__half a) { return __half(_Float16(-a.value)); }
inline __half __hfma(__half a, __half b, __half c) { return __double2half(double(a.value) * b.value + double(c.value)); }
inline bool __hisnan(__half a) { return a.value != a.value; }
inline __half2 __hadd2(__half2 a, __half2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
inline __half2 __hsub2(__half2 a, __half2 b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }
inline __half2 __hmul2(__half2 a, __half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
