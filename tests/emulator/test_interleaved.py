"""The order interleaved: right kernels give right values, a missing fence shows, and nothing that was written is lost."""

from typing import Any

import numpy as np
import pytest

from emulator.launcher import KernelError

TEXT = r"""
// The last block sums what all have written; `words` holds the counter, the sum, and the values side by side.
template <bool WRITER, bool READER>
__device__ void sum_up(unsigned* words) {
    unsigned* const values = words + 2;
    __shared__ bool last;
    const unsigned own = blockIdx.x * blockDim.x + threadIdx.x;
    values[own] = own + 1;
    __syncthreads();
    if (threadIdx.x == 0) {
        if (WRITER) __threadfence();
        last = atomicAdd(words, 1u) == gridDim.x - 1;
        if (READER) __threadfence();
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    unsigned sum = 0;
    for (unsigned i = 0; i < gridDim.x * blockDim.x; ++i) sum += values[i];
    words[1] = sum;
    words[0] = 0;
}
extern "C" __global__ void both_fences(unsigned* words) { sum_up<true, true>(words); }
extern "C" __global__ void not_before(unsigned* words) { sum_up<false, true>(words); }
extern "C" __global__ void not_after(unsigned* words) { sum_up<true, false>(words); }
extern "C" __global__ void exchanges(unsigned long long* words, unsigned* taken) {
    for (int round = 0; round < 3; ++round) {
        atomicAdd(words, 1ull);
        atomicMax(words + 1, 1ull * blockIdx.x);
        taken[3 * (blockIdx.x * blockDim.x + threadIdx.x) + round] = atomicInc(taken - 1, 1000000);
    }
}
extern "C" __global__ void writes_past(unsigned* words) {
    __threadfence();
    if (blockIdx.x == 3) words[threadIdx.x] = 1;
}
"""

SEEDS = range(1, 7)
BLOCKS, THREADS = 20, 64
NUM = BLOCKS * THREADS
"""Values of more than one page."""


@pytest.fixture(scope="module")
def kernels(cupy: Any) -> Any:
    return cupy.RawModule(code=TEXT, options=("-std=c++17",)).get_function


def seeds_that_are_right(cupy: Any, kernel: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    right = []
    for seed in SEEDS:
        monkeypatch.setenv("DDPGD_EMULATOR_ORDER", f"interleaved:{seed}")
        words = cupy.zeros(2 + NUM, np.uint32)
        kernel((BLOCKS,), (THREADS,), (words,))
        host = words.get()
        np.testing.assert_array_equal(host[2:], np.arange(1, NUM + 1))  # whatever was visible when
        if host[1] == NUM * (NUM + 1) // 2 and host[0] == 0:
            right.append(seed)
    return right


def test_with_both_fences_the_last_block_sees_what_all_wrote(
    cupy: Any, kernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seeds_that_are_right(cupy, kernels("both_fences"), monkeypatch) == list(SEEDS)


@pytest.mark.parametrize("name", ["not_before", "not_after"])
def test_a_missing_fence_shows(cupy: Any, kernels: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for order in ("forward", "reverse", "random:1"):
        monkeypatch.setenv("DDPGD_EMULATOR_ORDER", order)
        words = cupy.zeros(2 + NUM, np.uint32)
        kernels(name)((BLOCKS,), (THREADS,), (words,))
        assert int(words[1]) == NUM * (NUM + 1) // 2, "blocks in turn do not show it"
    assert len(seeds_that_are_right(cupy, kernels(name), monkeypatch)) <= len(SEEDS) // 2


def test_atomics_of_all_blocks_count(cupy: Any, kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in SEEDS:
        monkeypatch.setenv("DDPGD_EMULATOR_ORDER", f"interleaved:{seed}")
        words, taken = cupy.zeros(2, np.uint64), cupy.zeros(1 + 3 * NUM, np.uint32)
        kernels("exchanges")((BLOCKS,), (THREADS,), (words, taken[1:]))
        assert words.get().tolist() == [3 * NUM, BLOCKS - 1]
        host = taken.get()
        assert host[0] == 3 * NUM
        np.testing.assert_array_equal(np.sort(host[1:]), np.arange(3 * NUM))


def test_faults_are_faults_in_this_order_too(cupy: Any, kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPGD_EMULATOR_ORDER", "interleaved:1")
    for _ in range(2):  # a failure leaves nothing behind
        with pytest.raises(KernelError, match=r"writes_past, block \(3, 0, 0\), thread \(60, 0, 0\): illegal memory"):
            kernels("writes_past")((BLOCKS,), (61,), (cupy.zeros(60, np.uint32),))
    assert seeds_that_are_right(cupy, kernels("both_fences"), monkeypatch) == list(SEEDS)
