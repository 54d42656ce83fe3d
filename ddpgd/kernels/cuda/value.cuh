// The types of a precision: what activations and weights are stored as, and the way to float32 and back.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#if defined(PRECISION_FLOAT16)
using Value = __half;
__device__ __forceinline__ float to_float(Value value) { return __half2float(value); }
__device__ __forceinline__ Value to_value(float value) { return __float2half_rn(value); }
#elif defined(PRECISION_BFLOAT16)
using Value = __nv_bfloat16;
__device__ __forceinline__ float to_float(Value value) { return __bfloat162float(value); }
__device__ __forceinline__ Value to_value(float value) { return __float2bfloat16_rn(value); }
#elif defined(PRECISION_FLOAT32) || defined(PRECISION_TF32)
using Value = float;
__device__ __forceinline__ float to_float(Value value) { return value; }
__device__ __forceinline__ Value to_value(float value) { return value; }
#else
#error "define PRECISION_FLOAT32, PRECISION_TF32, PRECISION_FLOAT16 or PRECISION_BFLOAT16"
#endif
