"""Cooperative launches: all blocks of a grid at once, and barriers over them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.kernels.cuda import sources
from emulator import fake_cupy, fake_stream
from emulator.conftest import ORDERS
from emulator.launcher import KernelError
from tools.compile_kernels import uses
from tools.nvrtc import Job, compiled

HEADER = sources.joined("grid.cuh")
TEXT = (
    HEADER
    + r"""
#line 1 "planted.cu"
// Each block passes its value on to the next, as often as `rounds` says; shared memory and a barrier of its own between.
template <bool WITH_BARRIER>
__device__ void pass_on(int* values, unsigned* state, int rounds) {
    __shared__ int taken[1024];
    extern __shared__ int kept[];
    const int next = (blockIdx.x + 1) % gridDim.x, thread = threadIdx.x;
    kept[thread] = 1000 * blockIdx.x;
    for (int round = 0; round < rounds; ++round) {
        taken[blockDim.x - 1 - thread] = values[next * blockDim.x + thread];
        if (WITH_BARRIER) grid_barrier(state);
        else __syncthreads();
        values[blockIdx.x * blockDim.x + blockDim.x - 1 - thread] = taken[thread] + 1;
        if (WITH_BARRIER) grid_barrier(state);
        else __syncthreads();
    }
    values[blockIdx.x * blockDim.x + thread] += kept[blockDim.x - 1 - thread];
}
extern "C" __global__ void passes(int* values, unsigned* state, int rounds) { pass_on<true>(values, state, rounds); }
extern "C" __global__ void no_barrier(int* values, unsigned* state, int rounds) { pass_on<false>(values, state, rounds); }
extern "C" __global__ void one_exits(int* values, unsigned* state, int rounds) {
    if (blockIdx.x == 1) return;
    grid_barrier(state);
}
extern "C" __global__ void one_skips(int* values, unsigned* state, int rounds) {
    if (blockIdx.x != 1)
        grid_barrier(state);
    grid_barrier(state);
}
extern "C" __global__ void two_states(int* values, unsigned* state, int rounds) { grid_barrier(state + blockIdx.x % 2); }
extern "C" __global__ void states_of_threads(int* values, unsigned* state, int rounds) {
    grid_barrier(state + threadIdx.x % 2);
}
extern "C" __global__ void some_threads(int* values, unsigned* state, int rounds) {
    if (threadIdx.x < 32) grid_barrier(state);
    else __syncthreads();
}
__device__ int deep(int n) {
    volatile int room[1024];
    room[n % 1024] = n;
    return n == 0 ? 0 : deep(n - 1) + room[n % 1024];
}
extern "C" __global__ void recurses(int* values, unsigned* state, int rounds) { values[0] = deep(1000000); }
extern "C" __global__ void writes_past(int* values, unsigned* state, int rounds) {
    extern __shared__ char bytes[];
    grid_barrier(state);
    if (blockIdx.x == 2) bytes[rounds] = 1;
}
"""
)


@pytest.fixture
def kernels(cupy: Any) -> Any:
    return cupy.RawModule(code=TEXT, options=("-std=c++17",), enable_cooperative_groups=True).get_function


def values_after(cupy: Any, kernel: Any, state: Any, *, blocks: int, rounds: int = 3, threads: int = 64) -> Any:
    values = cupy.asarray(np.arange(blocks * threads, dtype=np.int32))
    kernel((blocks,), (threads,), (values, state, np.int32(rounds)), shared_mem=4 * threads)
    return values.get().reshape(blocks, threads)


def passed_on(blocks: int, rounds: int = 3, threads: int = 64) -> Any:
    rows = np.roll(np.arange(blocks * threads).reshape(blocks, threads), -rounds, axis=0) + rounds
    return rows + 1000 * np.arange(blocks)[:, None]


@pytest.mark.usefixtures("order")
def test_blocks_wait_for_each_other(cupy: Any, kernels: Any) -> None:
    state = cupy.zeros(2, np.uint32)
    for blocks in (1, 2, 7, 32):  # the state serves grids of any size
        np.testing.assert_array_equal(values_after(cupy, kernels("passes"), state, blocks=blocks), passed_on(blocks))
    assert int(state[0]) == 0  # after an even number of barriers
    kernel = kernels("passes")
    kernel((2, 3, 2), (4, 2, 2), (cupy.zeros(12 * 16, np.int32), state, np.int32(0)), shared_mem=64)


def test_a_grid_as_large_as_a_gpu(kernels: Any) -> None:
    with fake_cupy.install(num_multiprocessors=132) as cupy:
        state = cupy.zeros(1, np.uint32)
        values = values_after(cupy, kernels("passes"), state, blocks=132, threads=256)
        np.testing.assert_array_equal(values, passed_on(132, threads=256))
        with pytest.raises(KernelError, match="stack overflow"):  # the stacks of the many are not all guarded
            kernels("recurses")((1,), (64,), (cupy.zeros(1, np.int32), state, np.int32(0)))
    fake_stream.reset(1, "forward", False)


def test_a_missing_grid_barrier_shows(cupy: Any, kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state = cupy.zeros(1, np.uint32)
    for order in ORDERS:
        monkeypatch.setenv("DDPGD_EMULATOR_ORDER", order)
        values = values_after(cupy, kernels("no_barrier"), state, blocks=5)
        assert not np.array_equal(values, passed_on(5)), order


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one_exits", ("block (0, 0, 0)", "planted.cu:22", "divergent", "but block (1, 0, 0) has exited")),
        ("one_skips", ("planted.cu:26", "block (1, 0, 0) waits in grid_barrier at line 27")),
        ("two_states", ("planted.cu:29", "block (1, 0, 0) waits there with another state")),
        ("states_of_threads", ("planted.cu:31", "several states")),
        ("some_threads", ("planted.cu:34", "divergent", "__syncthreads")),
        ("writes_past", ("block (2, 0, 0)", "past the end of dynamic shared memory")),
    ],
)
def test_planted_faults(cupy: Any, kernels: Any, name: str, words: tuple[str, ...]) -> None:
    kernel, state = kernels(name), cupy.zeros(2, np.uint32)
    for _ in range(2):  # a failure leaves nothing behind
        with pytest.raises(KernelError) as caught:
            kernel((3,), (64,), (cupy.zeros(1, np.int32), state, np.int32(61)), shared_mem=61)
        assert all(word in str(caught.value) for word in (name, *words)), str(caught.value)
    np.testing.assert_array_equal(values_after(cupy, kernels("passes"), state, blocks=3), passed_on(3))


def test_a_state_that_was_not_zero(cupy: Any, kernels: Any) -> None:
    with pytest.raises(KernelError, match="state that was not zero"):
        values_after(cupy, kernels("passes"), cupy.empty(1, np.uint32), blocks=2)


def test_no_grid_barrier_in_other_launches(cupy: Any) -> None:
    kernel = cupy.RawModule(code=TEXT, options=("-std=c++17",)).get_function("passes")
    with pytest.raises(KernelError, match=r"planted\.cu.*not cooperative"):
        values_after(cupy, kernel, cupy.zeros(1, np.uint32), blocks=1)


def test_a_grid_that_does_not_fit_is_refused(kernels: Any) -> None:
    with fake_cupy.install(num_multiprocessors=2) as cupy:
        kernel, state = kernels("passes"), cupy.zeros(1, np.uint32)
        active = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor
        assert active(kernel.kernel.ptr, 1024, 4096) == 2
        assert active(kernel.kernel.ptr, 1000, 4096) == 2
        assert active(kernel.kernel.ptr, 64, 40 * 1024) == 2
        assert active(kernel.kernel.ptr, 32, 0) == 32
        assert active(kernel.kernel.ptr, 2048, 0) == active(kernel.kernel.ptr, 32, 64 * 1024) == 0
        values_after(cupy, kernel, state, blocks=4, threads=1024)
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="5 blocks, of which 4 fit"):
            values_after(cupy, kernel, state, blocks=5, threads=1024)
        assert cupy.cuda.Device().attributes["MultiProcessorCount"] == 2
    fake_stream.reset(1, "forward", False)


def test_graphs_hold_cooperative_launches(cupy: Any, kernels: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        values, state = cupy.zeros(4 * 64, np.int32), cupy.zeros(1, np.uint32)
        stream.begin_capture()
        kernels("passes")((4,), (64,), (values, state, np.int32(1)), shared_mem=256)
        graph = stream.end_capture()
        graph.launch()
        graph.launch()
        wanted = 2 + 1000 * (np.arange(4) + np.array([1, 2, 3, 0]))
        np.testing.assert_array_equal(values.get().reshape(4, 64)[:, 0], wanted)


def test_nvrtc_takes_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "joined", lambda _: TEXT)
    for arch in ("75", "90", "120"):
        found = uses(compiled(Job("planted.cu", "float32", arch)).log)
        assert found["passes"].spills == 0


def test_the_twin_has_the_functions_of_the_text() -> None:
    found = [
        set(re.findall(r"^(?:inline|__device__ __forceinline__) \w+ (\w+)\(", text, re.MULTILINE))
        for text in (
            (sources.FOLDER / "grid.cuh").read_text(),
            (Path(__file__).parent / "shim" / "grid.cuh").read_text(),
        )
    ]
    assert found[0] == found[1] == {"grid_barrier"}
