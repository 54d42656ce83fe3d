"""The emulator itself: right kernels give right values in every order of threads, and planted faults are found."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator import fake_cupy, fake_device
from emulator.launcher import KernelError

ORDERS = ["forward", "reverse", "random:1", "random:2"]

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

extern "C" __global__ void products(const unsigned* a, const unsigned* b, const float* c, float* d, int kind) {
    unsigned own_a[4], own_b[2];
    float own_d[4];
    for (int r = 0; r < 4; ++r) own_a[r] = a[4 * threadIdx.x + r];
    for (int r = 0; r < 2; ++r) own_b[r] = b[2 * threadIdx.x + r];
    for (int r = 0; r < 4; ++r) own_d[r] = c[4 * threadIdx.x + r];
    if (kind == 0) mma_m16n8k8_tf32(own_d, own_a, own_b);
    if (kind == 1) mma_m16n8k16_float16(own_d, own_a, own_b);
    if (kind == 2) mma_m16n8k16_bfloat16(own_d, own_a, own_b);
    for (int r = 0; r < 4; ++r) d[4 * threadIdx.x + r] = own_d[r];
}

template <int PENDING>
__device__ void pipeline(const float* x, float* out, int n) {
    __shared__ __align__(16) float stage[2][THREADS * 4];
    for (int s = 0; s < 2; ++s) {
        const int i = 4 * (s * THREADS + threadIdx.x);
        copy_async_16(&stage[s][4 * threadIdx.x], x + i, i < n);
        copy_async_commit();
    }
    copy_async_wait<PENDING>();
    __syncthreads();
    for (int e = 0; e < 4; ++e) out[4 * threadIdx.x + e] = stage[0][THREADS * 4 - 1 - 4 * threadIdx.x - e];
    copy_async_wait<0>();
    __syncthreads();
    for (int e = 0; e < 4; ++e) out[4 * (THREADS + threadIdx.x) + e] = stage[1][4 * threadIdx.x + e];
}
extern "C" __global__ void right_wait(const float* x, float* out, int n) { pipeline<1>(x, out, n); }
extern "C" __global__ void wrong_wait(const float* x, float* out, int n) { pipeline<2>(x, out, n); }

__device__ unsigned arrived = 0;
extern "C" __global__ void last_block(unsigned long long* total, int* last) {
    atomicAdd(total, 1ull << 33);
    __threadfence();
    __shared__ bool is_last;
    if (threadIdx.x == 0) is_last = atomicInc(&arrived, gridDim.x - 1) == gridDim.x - 1;
    __syncthreads();
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
"""

FAULTS = r"""
#include "ptx.cuh"

extern "C" __global__ void no_barrier(float* out) {
    __shared__ float part[64];
    part[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = part[SOURCE];
}
extern "C" __global__ void no_second_barrier(float* out) {
    __shared__ float part[64];
    float sum = 0;
    for (int round = 0; round < 2; ++round) {
        part[threadIdx.x] = round;
        __syncthreads();
        sum += part[(threadIdx.x + 1) % 64];
    }
    out[threadIdx.x] = sum;
}
extern "C" __global__ void off_by_one(float* x, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) x[i] = 0;
}
extern "C" __global__ void reads_past(const float* x, float* out, int n) { out[0] = x[n]; }
extern "C" __global__ void outside_shared(float* out, int n) {
    __shared__ float part[32];
    for (int i = threadIdx.x; i <= n; i += 32) part[i] = i;
    __syncthreads();
    out[threadIdx.x] = part[31 - threadIdx.x];
}
extern "C" __global__ void outside_dynamic(float* out) {
    extern __shared__ float part[];
    part[threadIdx.x] = 1;
    out[threadIdx.x] = part[threadIdx.x];
}
extern "C" __global__ void uninitialised(float* out) {
    __shared__ float part[64];
    extern __shared__ float dynamic[];
    if (threadIdx.x < 32) part[threadIdx.x] = dynamic[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = part[threadIdx.x] + dynamic[63 - threadIdx.x];
}
extern "C" __global__ void exits_before_barrier(float* out) {
    if (threadIdx.x == 5) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}
extern "C" __global__ void two_barriers(float* out) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}
extern "C" __global__ void wrong_mask(int* out) {
    out[threadIdx.x] = __shfl_sync(threadIdx.x < 16 ? 0xffffffff : 0xfffffffe, int(threadIdx.x), 0);
}
extern "C" __global__ void lane_not_in_mask(int* out) { out[threadIdx.x] = __ballot_sync(0x0000ffff, 1); }
extern "C" __global__ void lane_missing(int* out) {
    if (threadIdx.x != 3) __syncwarp();
    __syncthreads();
}
extern "C" __global__ void half_a_warp(float* out) {
    float d[4] = {};
    const unsigned a[4] = {}, b[2] = {};
    mma_m16n8k8_tf32(d, a, b);
}
extern "C" __global__ void null_pointer(float* out) { out[0] = 1; }
extern "C" __global__ void misaligned(const float* x, float4* out) {
    out[0] = *reinterpret_cast<const float4*>(x + 1);
}
extern "C" __global__ void divides(int* out, int by) { out[0] = 7 / by; }
__device__ int deep(int n) {
    volatile int room[1024];
    room[n % 1024] = n;
    return n == 0 ? 0 : deep(n - 1) + room[n % 1024];
}
extern "C" __global__ void recurses(int* out) { out[0] = deep(1000000); }
extern "C" __global__ void asserts(int* out) { assert(out == nullptr); }
"""


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    with fake_cupy.install() as module:
        yield module


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DDPGD_EMULATOR_ORDER", request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def kernels(cupy: Any) -> Any:
    return cupy.RawModule(code=KERNELS, options=("-std=c++17",)).get_function


@pytest.fixture(scope="module")
def faults(cupy: Any) -> Any:
    return cupy.RawModule(code=FAULTS, options=("-DSOURCE=((threadIdx.x + 1) % 64)",)).get_function


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


# Element i of a lane's fragment is at (row, column), as the tables of the PTX ISA say for group = lane >> 2 and
# member = lane % 4.
def place_a_tf32(group: int, member: int, i: int) -> tuple[int, int]:
    return (group if i in (0, 2) else group + 8), (member if i in (0, 1) else member + 4)


def place_b_tf32(group: int, member: int, i: int) -> tuple[int, int]:
    return (member if i == 0 else member + 4), group


def place_a_16(group: int, member: int, i: int) -> tuple[int, int]:
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    return row, member * 2 + (i & 1) if i < 4 else member * 2 + (i & 1) + 8


def place_b_16(group: int, member: int, i: int) -> tuple[int, int]:
    return (member * 2 + (i & 1) if i < 2 else member * 2 + (i & 1) + 8), group


def place_c(group: int, member: int, i: int) -> tuple[int, int]:
    return (group if i < 2 else group + 8), member * 2 + (i & 1)


def fragments(matrix: "np.ndarray[Any, Any]", place: Any, count: int) -> "np.ndarray[Any, Any]":
    lanes = [[matrix[place(lane >> 2, lane % 4, i)] for i in range(count)] for lane in range(32)]
    return np.array(lanes, matrix.dtype)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("kind", ["tf32", "float16", "bfloat16"])
def test_products(cupy: Any, kernels: Any, kind: str) -> None:
    rng = np.random.default_rng(3)
    k = 8 if kind == "tf32" else 16
    a, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, k), (k, 8), (16, 8)))
    if kind == "tf32":
        packed_a, packed_b = fragments(a, place_a_tf32, 4), fragments(b, place_b_tf32, 2)
        a, b = ((v.view(np.uint32) & 0xFFFFE000).view(np.float32) for v in (a, b))
    else:
        bits_a, bits_b = (v.astype(np.float16).view(np.uint16) if kind == "float16" else to_bfloat16(v) for v in (a, b))
        packed_a, packed_b = fragments(bits_a, place_a_16, 8), fragments(bits_b, place_b_16, 4)
        a, b = (
            v.view(np.float16).astype(np.float32) if kind == "float16" else (v.astype(np.uint32) << 16).view(np.float32)
            for v in (bits_a, bits_b)
        )
    d = cupy.empty((32, 4), np.float32)
    which = np.int32(["tf32", "float16", "bfloat16"].index(kind))
    words = [cupy.asarray(v.view(np.uint32)) for v in (packed_a, packed_b)]
    kernels("products")((1,), (32,), (*words, cupy.asarray(fragments(c, place_c, 4)), d, which))
    wanted = a.astype(np.float64) @ b + c
    np.testing.assert_allclose(d.get(), fragments(wanted, place_c, 4), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("order")
def test_asynchronous_copies(cupy: Any, kernels: Any) -> None:
    n = 900
    x = np.arange(1, 1 + n, dtype=np.float32)
    for name in ("right_wait", "wrong_wait"):
        out = cupy.empty(1024, np.float32)
        kernels(name)((1,), (128,), (cupy.asarray(x), out, np.int32(n)))
        host = out.get()
        np.testing.assert_array_equal(host[512:], np.append(x[512:], np.zeros(124, np.float32)))
        if name == "right_wait":
            np.testing.assert_array_equal(host[:512], x[511::-1])
        else:
            assert np.isnan(host[:512]).any()


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


def test_a_missing_barrier_shows(cupy: Any, faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"no_barrier": (np.arange(64) + 1) % 64, "no_second_barrier": np.full(64, 1)}
    for name, values in wanted.items():
        wrong = []
        for order in ORDERS:
            monkeypatch.setenv("DDPGD_EMULATOR_ORDER", order)
            out = cupy.empty(64, np.float32)
            faults(name)((1,), (64,), (out,))
            wrong.append(not np.array_equal(out.get(), values))
        assert any(wrong), name


def fails(call: Any, *words: str) -> None:
    with pytest.raises(KernelError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_writing_past_an_array(cupy: Any, faults: Any) -> None:
    for n in (64, 61):  # the end of a page, and 12 bytes before it
        x = cupy.empty(n, np.float32)
        faults("off_by_one")((2,), (64,), (x, np.int32(n - 1)))
        fails(lambda x=x, n=n: faults("off_by_one")((2,), (64,), (x, np.int32(n))), "off_by_one")


def test_reading_past_an_array(cupy: Any, faults: Any) -> None:
    x, out = cupy.empty(64, np.float32), cupy.empty(1, np.float32)
    words = (
        "reads_past, block (0, 0, 0), thread (0, 0, 0)",
        "illegal memory access",
        "no_barrier.cu:23",
        "array of 256",
    )
    fails(lambda: faults("reads_past")((1,), (1,), (x, out, np.int32(64))), *words)
    faults("reads_past")((1,), (1,), (x, out, np.int32(63)))


@pytest.mark.usefixtures("order")
def test_outside_shared_memory(cupy: Any, faults: Any) -> None:
    out = cupy.empty(64, np.float32)
    faults("outside_shared")((1,), (32,), (out, np.int32(31)))
    fails(lambda: faults("outside_shared")((1,), (32,), (out, np.int32(32))), "index outside")
    faults("outside_dynamic")((1,), (64,), (out,), shared_mem=256)
    fails(lambda: faults("outside_dynamic")((1,), (64,), (out,), shared_mem=240), "past the end of dynamic")
    fails(lambda: faults("outside_dynamic")((1,), (64,), (out,), shared_mem=252), "past the end of dynamic")


@pytest.mark.usefixtures("order")
def test_uninitialised_shared_memory(cupy: Any, faults: Any) -> None:
    out = cupy.empty((2, 64), np.float32)
    faults("uninitialised")((1,), (64,), (out,), shared_mem=256)
    assert np.isnan(out.get()[0]).all()


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exits_before_barrier", ("divergent", "__syncthreads", "thread (5, 0, 0) has exited", "no_barrier.cu:44")),
        ("two_barriers", ("divergent", "cu:49", "line 51")),
        ("wrong_mask", ("__shfl_sync with mask 0xfffffff", "waits in __shfl_sync with mask 0xfffffff")),
        ("lane_not_in_mask", ("lacks the calling lane",)),
        ("lane_missing", ("divergent", "__syncwarp", "__syncthreads")),
        ("half_a_warp", ("fewer than 32 threads",)),
        ("recurses", ("stack overflow",)),
        ("asserts", ("assertion failed: out == nullptr",)),
    ],
)
def test_faults_between_threads(cupy: Any, faults: Any, name: str, words: tuple[str, ...]) -> None:
    out = cupy.empty(
        64,
        np.int32 if name in {"wrong_mask", "lane_not_in_mask", "lane_missing", "recurses", "asserts"} else np.float32,
    )
    threads = 16 if name == "half_a_warp" else 64 if name != "wrong_mask" else 32
    for _ in range(2):  # a failure leaves nothing behind
        fails(lambda: faults(name)((1,), (threads,), (out,)), name, *words)


def test_other_faults(cupy: Any, faults: Any) -> None:
    out, x = cupy.empty(4, np.float32), cupy.empty(8, np.float32)
    fails(lambda: faults("null_pointer")((1,), (1,), (np.intp(0),)), "illegal memory access")
    fails(lambda: faults("misaligned")((1,), (1,), (x, out)), "misaligned")
    fails(lambda: faults("divides")((1,), (1,), (cupy.empty(1, np.int32), np.int32(0))), "division by zero")


def test_refused_launches(cupy: Any, kernels: Any) -> None:
    kernel = kernels("block_sum")
    x, out, n = cupy.zeros(128, np.float32), cupy.empty(1, np.float32), np.int32(128)

    def launch(*args: Any, grid: Any = (1,), block: Any = (128,), shared_mem: int = 512) -> None:
        kernel(grid, block, args, shared_mem=shared_mem)

    launch(x, out, n)
    for args in [(x, out), (x, out, n, n), (x, out, 128), (x, out, np.int64(128)), (x, out, 128.0), (x, out, None)]:
        with pytest.raises(TypeError):
            launch(*args)
    for wrong in (x.view(np.int32), cupy.empty(128, np.float64), np.zeros(128, np.float32), None, 0, np.float32(0)):
        with pytest.raises(TypeError):
            launch(wrong, out, n)
    for shape in ({"grid": (0,)}, {"block": (256,)}, {"block": (0,)}, {"shared_mem": 50000}, {"grid": (1, 65536)}):
        with pytest.raises(cupy.cuda.driver.CUDADriverError):
            launch(x, out, n, **shape)
    kernel.max_dynamic_shared_size_bytes = 50000
    launch(x, out, n, shared_mem=50000)
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        kernel.max_dynamic_shared_size_bytes = 100 * 1024


def test_refused_texts(cupy: Any) -> None:
    text = 'extern "C" __global__ void adds(float* x) { atomicAdd(x, 1.0f); }'
    with pytest.raises(cupy.cuda.compiler.CompileException, match=r"adds\.cu:1"):
        cupy.RawModule(code=text).get_function("adds")
    with pytest.raises(cupy.cuda.compiler.CompileException, match="unrecognised option"):
        cupy.RawModule(code=KERNELS, options=("--wrong",)).get_function("block_sum")
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        cupy.RawModule(code=KERNELS, options=("-std=c++17",)).get_function("missing")


def test_capture(cupy: Any, kernels: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    out, host = cupy.empty(1, np.float32), np.zeros(128, np.float32)
    with stream:
        x = cupy.zeros(128, np.float32)
        stream.begin_capture()
        assert stream.is_capturing()
        x.fill(2)
        kernels("block_sum")((1,), (128,), (x, out, np.int32(128)), shared_mem=512)
        refused = [
            out.get,
            stream.synchronize,
            lambda: float(out[0]),
            lambda: x.set(host),
            cupy.cuda.Device().synchronize,
        ]
        for call in refused:
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
                call()
        graph = stream.end_capture()
        assert np.isnan(out.get()[0])
        graph.launch()
        assert float(out[0]) == 256
        out.fill(0)
        graph.upload(stream)
        graph.launch(stream)
        assert int(out[0]) == 256
    with pytest.raises(RuntimeError):
        cupy.cuda.Stream.null.begin_capture()


def test_arrays(cupy: Any) -> None:
    host = np.arange(24, dtype=np.float32).reshape(4, 6)
    x = cupy.asarray(host)
    assert x[1].data.ptr == x.data.ptr + 24
    assert x[2, 3].shape == ()
    assert float(x[2, 3]) == 15
    assert not x[:, 1:3].flags.c_contiguous
    np.testing.assert_array_equal(x[1:3, ::2].get(), host[1:3, ::2])
    np.testing.assert_array_equal(cupy.asnumpy(x.reshape(6, -1)), host.reshape(6, 4))
    x[0] = x[1]
    x[1, 2:4] = 7
    host[0], host[1, 2:4] = host[1], 7
    np.testing.assert_array_equal(x.get(), host)
    out = np.empty_like(host)
    assert x.get(out=out) is out
    wrong = [(lambda: np.asarray(x), TypeError), (lambda: np.add(x, 1), TypeError), (lambda: x + 1, TypeError)]
    wrong += [(lambda: x.set(host.astype(np.float64)), TypeError), (lambda: x.set(host[0]), ValueError)]
    wrong += [(lambda: x.__setitem__(0, host[0]), ValueError), (lambda: x[:, 1:3].reshape(8), ValueError)]
    for call, error in wrong:
        with pytest.raises(error):
            call()
    assert np.isnan(cupy.empty(3, np.float32).get()).all()


def test_copies_by_address(cupy: Any) -> None:
    buffer = cupy.cuda.alloc_pinned_memory(4 * 100)
    host = np.frombuffer(buffer, np.float32, 100)
    host[:] = np.arange(100)
    x = cupy.empty(100, np.float32)
    runtime, stream = cupy.cuda.runtime, cupy.cuda.Stream(non_blocking=True)
    runtime.memcpyAsync(x.data.ptr, host.ctypes.data, 400, runtime.memcpyHostToDevice, stream.ptr)
    runtime.memsetAsync(x.data.ptr, 0, 40, stream.ptr)
    stream.synchronize()
    np.testing.assert_array_equal(x.get(), np.where(np.arange(100) < 10, 0, np.arange(100)))
    with pytest.raises(runtime.CUDARuntimeError):
        runtime.memcpyAsync(x.data.ptr, host.ctypes.data, 404, runtime.memcpyHostToDevice, stream.ptr)
    with pytest.raises(runtime.CUDARuntimeError):
        runtime.memcpyAsync(host.ctypes.data, x.data.ptr, 400, runtime.memcpyHostToDevice, stream.ptr)


def test_devices(kernels: Any) -> None:
    with fake_cupy.install(num_devices=2) as cupy:
        assert cupy.cuda.runtime.getDeviceCount() == 2
        with cupy.cuda.Device(1):
            x = cupy.zeros(128, np.float32)
            assert cupy.cuda.runtime.getDevice() == 1
            assert cupy.cuda.Device().compute_capability == "90"
        with pytest.raises(ValueError, match="device 1"):
            kernels("block_sum")((1,), (128,), (x, x, np.int32(1)), shared_mem=512)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
            cupy.cuda.Device(2).use()
    fake_device.settings.num_devices = 1


def test_in_another_process() -> None:
    code = "import cupy, sys; print(cupy.__version__, cupy.cuda.runtime.getDeviceCount(), float(cupy.zeros(1)[0]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "site"), "DDPGD_EMULATOR_DEVICES": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["3", "0.0"]


def test_kernel_takes_no_reference_to_freed_memory(cupy: Any, faults: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    x = cupy.empty(64, np.float32)
    with stream:
        stream.begin_capture()
        faults("off_by_one")((1,), (64,), (x, np.int32(63)))
        graph = stream.end_capture()
    graph.launch(stream)
    del x
    fails(lambda: graph.launch(stream), "illegal memory access")
