"""NCCL with one rank: what it sends to itself, and a sum over all ranks, alone and inside a CUDA graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddpgd.comm.transport import Alone


@pytest.fixture(scope="module")
def stream() -> Any:
    import cupy

    return cupy.cuda.Stream(non_blocking=True)


@pytest.fixture(scope="module")
def nccl(stream: Any) -> Any:
    """The transport of one rank; where there is none, tests are skipped."""
    try:
        from ddpgd.comm.transports.nccl import join
    except ImportError as error:
        pytest.skip(f"NCCL cannot be loaded ({error}): pip install nvidia-nccl-cu13, or nvidia-nccl-cu12")
    transport, why = join(Alone(), lambda: stream)
    assert transport is not None, why
    return transport


def sends_to_itself(nccl: Any, source: Any, target: Any) -> Callable[[], None]:
    return lambda: nccl.all_to_all([[source]], [[target]])


def sums_and_sends(nccl: Any, source: Any, target: Any) -> Callable[[], None]:
    def work() -> None:
        nccl.all_reduce(source)
        nccl.all_to_all([[source]], [[target]])

    return work


@pytest.mark.parametrize("calls", [sends_to_itself, sums_and_sends])
@pytest.mark.parametrize("num_words", [1, 1000, 1_000_000])
@pytest.mark.parametrize("captured", [False, True], ids=["called", "captured"])
def test_one_rank_gets_what_it_sent(calls: Any, num_words: int, captured: bool, nccl: Any, stream: Any) -> None:
    import cupy

    words = np.random.default_rng(num_words).standard_normal(num_words).astype(np.float32)
    with stream:
        source, target = cupy.asarray(words), cupy.zeros(num_words, np.float32)
        work = calls(nccl, source, target)
        work()  # NCCL makes its connections at the first call, which a capture forbids
        stream.synchronize()
        assert cupy.asnumpy(target).tobytes() == words.tobytes()
        if captured:
            target.fill(0)
            stream.begin_capture()
            work()
            graph = stream.end_capture()
            stream.synchronize()
            assert not cupy.asnumpy(target).any(), "the work ran while it was captured"
            graph.launch(stream)
            stream.synchronize()
            assert cupy.asnumpy(target).tobytes() == words.tobytes()
