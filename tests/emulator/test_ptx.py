"""The emulator's twin of `ptx.cuh`: products of fragments, loads of matrices, and copies that do not wait."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.compiler import SHIM
from emulator.dense_cases import load, store
from emulator.launcher import KernelError

KERNELS = r"""
#include "ptx.cuh"

constexpr int THREADS = 128;

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
        copy_async<16>(&stage[s][4 * threadIdx.x], x + i, i < n);
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

template <bool TRANSPOSED>
__device__ void load(const unsigned short* x, unsigned* out) {
    __shared__ __align__(16) unsigned short rows[32][24];
    for (int i = 0; i < 8; ++i) rows[31 - threadIdx.x][i] = x[8 * threadIdx.x + i];
    __syncwarp();
    unsigned registers[4];
    load_matrices<TRANSPOSED>(registers, rows[31 - threadIdx.x]);
    for (int r = 0; r < 4; ++r) out[4 * threadIdx.x + r] = registers[r];
}
extern "C" __global__ void load_as_it_lies(const unsigned short* x, unsigned* out) { load<false>(x, out); }
extern "C" __global__ void load_transposed(const unsigned short* x, unsigned* out) { load<true>(x, out); }
extern "C" __global__ void load_unaligned(unsigned* out) {
    __shared__ __align__(16) unsigned rows[32][5];
    unsigned registers[4];
    load_matrices<false>(registers, rows[threadIdx.x]);
    out[threadIdx.x] = registers[0];
}
"""


@pytest.fixture(scope="module")
def kernels(cupy: Any) -> Any:
    return cupy.RawModule(code=KERNELS, options=("-std=c++17",)).get_function


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
        bits_a, bits_b = (store(v, kind).view(np.uint16) for v in (a, b))
        packed_a, packed_b = fragments(bits_a, place_a_16, 8), fragments(bits_b, place_b_16, 4)
        a, b = (load(store(v, kind), kind) for v in (a, b))
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
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices(cupy: Any, kernels: Any, transposed: bool) -> None:
    """Lane 8 r + i names row i of matrix r; a lane gets two neighbours of row lane // 4, or, transposed, of a column."""
    x = np.arange(1000, 1256, dtype=np.uint16).reshape(4, 8, 8)
    out = cupy.empty((32, 4), np.uint32)
    kernels("load_transposed" if transposed else "load_as_it_lies")((1,), (32,), (cupy.asarray(x), out))
    matrices = x.swapaxes(1, 2) if transposed else x
    pairs = np.ascontiguousarray(matrices).view(np.uint32).reshape(4, 32)
    np.testing.assert_array_equal(out.get(), pairs.T)


def test_rows_of_matrices_begin_at_multiples_of_16_bytes(cupy: Any, kernels: Any) -> None:
    with pytest.raises(KernelError, match="no multiple of 16"):
        kernels("load_unaligned")((1,), (32,), (cupy.empty(32, np.uint32),))


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
