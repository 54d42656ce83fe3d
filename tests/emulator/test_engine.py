"""The emulator itself: right kernels give right values in every order of threads."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.compiler import SHIM

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


def test_subnormal_values_count_as_zeros(cupy: Any, kernels: Any) -> None:
    """CuPy compiles every module with -ftz=true; a value that is only copied stays as it is."""
    x = np.array([2.0**-100, 2.0**-30, 2.0**-127, 4], np.float32)
    out = cupy.empty(7, np.float32)
    for _ in range(2):
        kernels("subnormals")((1,), (1,), (out, cupy.asarray(x)))
        np.testing.assert_array_equal(out.get(), [0, 0, 0, 0, x[2], -x[0], 0])
        assert np.float32(2.0**-100) * np.float32(2.0**-30) > 0, "NumPy's own arithmetic is as before"


def test_the_twin_replaces_inline_ptx(cupy: Any, tmp_path: Path) -> None:
    real = Path(__file__).parents[2] / "ddpgd" / "kernels" / "cuda" / "ptx.cuh"
    shutil.copy(real, tmp_path)
    (tmp_path / "helper.cuh").write_text(
        '#include "ptx.cuh"\ninline __device__ unsigned helped(float x) { return to_tf32(x); }'
    )
    text = '#include "helper.cuh"\nextern "C" __global__ void rounds(unsigned* out, float x) { *out = helped(x); }'
    out = cupy.empty((), np.uint32)
    kernel = cupy.RawModule(code=text, options=("-I", str(tmp_path))).get_function("rounds")
    kernel((1,), (1,), (out, np.float32(1 / 3)))
    assert int(out) == 0x3EAAA000 + 0x2000 * (0x3EAAAAAB % 0x2000 >= 0x1000)
    twin = (SHIM / "ptx.cuh").read_text()
    names = set(re.findall(r"(?:DDPGD_MMA\(|__device__ __forceinline__ \w+ )(\w+)\b", real.read_text())) - {"NAME"}
    assert len(names) > 7
    assert all(re.search(rf"^inline \w+ {name}\(", twin, re.MULTILINE) for name in names)
