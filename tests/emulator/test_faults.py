"""Planted faults are found, whatever the order of threads: each test's kernel does one thing that no kernel may."""

from typing import Any

import numpy as np
import pytest

from emulator.conftest import ORDERS
from emulator.launcher import KernelError

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
def faults(cupy: Any) -> Any:
    return cupy.RawModule(code=FAULTS, options=("-DSOURCE=((threadIdx.x + 1) % 64)",)).get_function


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
