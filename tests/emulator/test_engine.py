"""The emulator itself: right kernels give right values in every order of threads."""

from typing import Any

import numpy as np
import pytest

KERNELS = r"""
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include "ptx.cuh"

constexpr int THREADS = 128;

template <int N>
__device__ __forceinline__ float sum_of_block(float value) {
    __shared__ float part[N];
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = N / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    return part[0];
}

extern "C" __global__ void __launch_bounds__(THREADS) block_sum(const float* __restrict__ x, float* out, int n) {
    extern __shared__ __align__(16) float staged[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    staged[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    const float total = sum_of_block<THREADS>(staged[blockDim.x - 1 - threadIdx.x]);
    if (threadIdx.x == 0) out[blockIdx.x] = total;
}

extern "C" __global__ void warp_sums(const int* x, int* down, int* flipped, int* up, int* reduced, unsigned* ballots) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    int sum = x[i], prefix = x[i];
    for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffff, sum, delta);
    down[i] = __shfl_sync(0xffffffff, sum, 0);
    int both = x[i];
    for (int bit = 16; bit > 0; bit /= 2) both += __shfl_xor_sync(0xffffffff, both, bit);
    flipped[i] = both;
    for (int delta = 1; delta < 8; delta *= 2) {
        const int lower = __shfl_up_sync(0xffffffff, prefix, delta, 8);
        if (threadIdx.x % 8 >= delta) prefix += lower;
    }
    up[i] = prefix;
    const unsigned mask = threadIdx.x % 32 < 20 ? 0x000fffff : 0xfff00000;
    if (threadIdx.x % 32 < 20)
        reduced[i] = __reduce_add_sync(mask, x[i]);
    else
        reduced[i] = __reduce_add_sync(mask, 2 * x[i]);
    ballots[i] = __ballot_sync(0xffffffff, x[i] & 1);
}

extern "C" __global__ void from_16_bits(const __half* halves, const __nv_bfloat16* bfloats, float* wide, float* wider) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    wide[i] = __half2float(halves[i]);
    wider[i] = __bfloat162float(bfloats[i]);
}

extern "C" __global__ void to_16_bits(const float* x, unsigned short* halves, unsigned short* bfloats, unsigned* tf32) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    halves[i] = __half_as_ushort(__float2half_rn(x[i]));
    bfloats[i] = __bfloat16_as_ushort(__float2bfloat16_rn(x[i]));
    tf32[i] = to_tf32(x[i]);
}

__device__ unsigned arrived = 0;
extern "C" __global__ void last_block(unsigned long long* total, int* last) {
    atomicAdd(total, 1ull << 33);
    __threadfence();
    __shared__ bool is_last;
    __syncthreads();
    if (threadIdx.x == 0) is_last = atomicInc(&arrived, gridDim.x - 1) == gridDim.x - 1;
    __syncthreads();
    __threadfence();
    if (is_last && threadIdx.x == 0) *last = atomicMax(last, 7) + int(*total >> 33);
}

extern "C" __global__ void indices(int* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 10000 * block + thread;
}

extern "C" __global__ void scalars(double* out, float f, double d, long long l, unsigned u, unsigned long long v) {
    out[0] = f, out[1] = d, out[2] = double(l), out[3] = u, out[4] = double(__umul64hi(v, v));
    out[5] = __fmaf_rn(f, f, -__fmul_rn(f, f));
    out[6] = __popc(u), out[7] = __clz(u), out[8] = __ffs(u);
}

extern "C" __global__ void subnormals(float* out, const float* x) {
    out[0] = x[0] * x[1], out[1] = __fmul_rn(x[2], x[3]), out[2] = __fmaf_rn(x[0], x[1], x[2]), out[3] = x[2] > 0.0f;
    out[4] = x[2], out[5] = __fadd_rn(x[2], -x[0]), out[6] = float(double(x[2]) * 4);
}
"""


@pytest.fixture(scope="module")
def kernels(cupy: Any) -> Any:
    return cupy.RawModule(code=KERNELS, options=("-std=c++17",)).get_function


@pytest.mark.usefixtures("order")
def test_block_sum(cupy: Any, kernels: Any) -> None:
    n = 7 * 128 - 5
    x = np.arange(n, dtype=np.float32)
    out = cupy.empty(7, np.float32)
    kernels("block_sum")((7,), (128,), (cupy.asarray(x), out, np.int32(n)), shared_mem=512)
    np.testing.assert_array_equal(out.get(), np.append(x, np.zeros(5, np.float32)).reshape(7, 128).sum(1))


@pytest.mark.usefixtures("order")
def test_warp_operations(cupy: Any, kernels: Any) -> None:
    x = np.random.default_rng(0).integers(-100, 100, 256).astype(np.int32)
    down, flipped, up, reduced = (cupy.empty(256, np.int32) for _ in range(4))
    ballots = cupy.empty(256, np.uint32)
    kernels("warp_sums")((2,), (128,), (cupy.asarray(x), down, flipped, up, reduced, ballots))
    warps = x.reshape(8, 32)
    np.testing.assert_array_equal(down.get(), np.repeat(warps.sum(1), 32))
    np.testing.assert_array_equal(flipped.get(), down.get())
    np.testing.assert_array_equal(up.get(), x.reshape(-1, 8).cumsum(1).ravel())
    wanted = np.concatenate(
        [np.tile(warps[:, :20].sum(1)[:, None], 20), np.tile(2 * warps[:, 20:].sum(1)[:, None], 12)], 1
    )
    np.testing.assert_array_equal(reduced.get(), wanted.ravel())
    np.testing.assert_array_equal(ballots.get(), np.repeat(((warps & 1) << np.arange(32)).sum(1), 32))


def to_bfloat16(x: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Nearest even, in integers: the halfway case goes to the even one of the two neighbours."""
    wide = x.view(np.uint32).astype(np.uint64)
    down, rest = wide >> 16, wide & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (down % 2 == 1))
    return np.where(np.isnan(x), 0x7FFF, down + up).astype(np.uint16)


def test_every_16_bit_pattern(cupy: Any, kernels: Any) -> None:
    patterns = np.arange(65536, dtype=np.uint16)
    wide, wider = (cupy.empty(65536, np.float32) for _ in range(2))
    kernels("from_16_bits")((256,), (256,), (cupy.asarray(patterns), cupy.asarray(patterns), wide, wider))
    halves = patterns.view(np.float16).astype(np.float32)
    bfloats = (patterns.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(wide.get(), halves)
    np.testing.assert_array_equal(wider.get().view(np.uint32), bfloats.view(np.uint32))

    with np.errstate(over="ignore", invalid="ignore"):
        nudged = [np.nextafter(v, np.float32(to)) for v in (halves, bfloats) for to in (-np.inf, np.inf)]
        between = [(v[:-1] + v[1:]) / np.float32(2) for v in (halves, bfloats)]
    x = np.concatenate([halves, bfloats, *nudged, *(np.append(v, np.float32(0)) for v in between)])
    as_half, as_bfloat = (cupy.empty(x.size, np.uint16) for _ in range(2))
    as_tf32 = cupy.empty(x.size, np.uint32)
    kernels("to_16_bits")((x.size // 256,), (256,), (cupy.asarray(x), as_half, as_bfloat, as_tf32))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(as_half.get().view(np.float16), x.astype(np.float16))
    np.testing.assert_array_equal(as_bfloat.get(), to_bfloat16(x))
    wide_bits = x.view(np.uint32).astype(np.uint64)
    wanted = np.where(np.isinf(x), wide_bits, (wide_bits + 0x1000) >> 13 << 13)
    np.testing.assert_array_equal(as_tf32.get(), np.where(np.isnan(x), 0x7FFFFFFF, wanted).astype(np.uint32))


@pytest.mark.usefixtures("order")
def test_last_block(cupy: Any, kernels: Any) -> None:
    total, last = cupy.zeros((), np.uint64), cupy.zeros((), np.int32)
    kernels("last_block")((5,), (64,), (total, last))
    assert (int(total) >> 33, int(last)) == (320, 320)


@pytest.mark.usefixtures("order")
def test_indices(cupy: Any, kernels: Any) -> None:
    out = cupy.empty((12, 60), np.int32)
    kernels("indices")((2, 3, 2), (3, 4, 5), (out,))
    np.testing.assert_array_equal(out.get(), 10000 * np.arange(12)[:, None] + np.arange(60))


def test_scalars(cupy: Any, kernels: Any) -> None:
    out = cupy.empty(9, np.float64)
    f = np.float32(1 / 3)
    values = (f, np.float64(0.1), np.int64(-(2**40)), np.uint32(2**31 + 8), np.uint64(2**63))
    kernels("scalars")((1,), (1,), (out, *values))
    exact = float(f) ** 2
    np.testing.assert_array_equal(
        out.get(), [f, 0.1, -(2.0**40), 2**31 + 8, 2**62, np.float32(exact - float(f * f)), 2, 0, 4]
    )


def test_subnormal_values_count_as_zeros(cupy: Any, kernels: Any) -> None:
    """CuPy compiles every module with -ftz=true; a value that is only copied stays as it is."""
    x = np.array([2.0**-100, 2.0**-30, 2.0**-127, 4], np.float32)
    out = cupy.empty(7, np.float32)
    for _ in range(2):
        kernels("subnormals")((1,), (1,), (out, cupy.asarray(x)))
        np.testing.assert_array_equal(out.get(), [0, 0, 0, 0, x[2], -x[0], 0])
        assert np.float32(2.0**-100) * np.float32(2.0**-30) > 0, "NumPy's own arithmetic is as before"
