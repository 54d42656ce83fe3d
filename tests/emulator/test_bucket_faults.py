"""Faults planted in the exchange beside the backward pass are found by what a peer gets, of a graph of one emulated GPU."""

import ctypes
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ddpgd.comm import forms
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.rows import Group
from ddpgd.comm.transport import Alone
from ddpgd.comm.windows import windows
from ddpgd.kernels.words import BLOCK, TAIL_WORDS

from . import fake_cupy

STARTS, SIZE = (0, 3 * BLOCK, 5 * BLOCK), 6 * BLOCK
LENGTH = SIZE + TAIL_WORDS
CUTS = STARTS[:0:-1]


class Peer(Alone):
    """The first of two ranks. Its peer sends zeros, and notes what it gets: parts of a row, by their addresses."""

    name = "peer"
    world_size = 2

    def __init__(self, ops: Any) -> None:
        self._ops = ops
        self.got: list[tuple[int, bytes]] = []

    def all_to_all(self, sends: Any, receives: Any) -> None:
        def work() -> None:
            self.got += [(array.data.ptr, ctypes.string_at(array.data.ptr, array.nbytes)) for array in sends[1]]
            for array in receives[1]:
                ctypes.memset(array.data.ptr, 0, array.nbytes)

        self._ops.stream.enqueue(work)


def difference(plant: Callable[[Any], None], cuts: tuple[int, ...] = CUTS, join: int = 1) -> float:
    """The largest difference between this rank's sum of two micro-batches and what its peer gets; NaN: it gets not all.

    The sum runs twice, as a graph, of other gradients each time.
    """
    from ddpgd.kernels.cuda.backend import Cuda

    ops: Any = Cuda(0, "float32")
    peer = Peer(ops)
    plant(ops)
    exchange = Exchange(peer, ops, SIZE, cuts=cuts, join=join)
    fresh, zeros = ops.zeros((2, LENGTH), np.float32), ops.zeros((LENGTH,), np.float32)

    def fill(group: Group, span: slice) -> None:
        """Fills rows layer by layer, as a backward pass does: those of the layers that begin in the bucket."""
        first, last = (bisect_left(STARTS, place) for place in (span.start, span.stop))
        begin, end = STARTS[first], LENGTH if last == len(STARTS) else STARTS[last]
        for row, micro_batch in zip(group.rows.whole, group.micro_batches, strict=True):
            ops.add(fresh[micro_batch][begin:end], zeros[begin:end], row[begin:end])

    def work() -> None:
        for group in exchange.groups(4)[:-1]:
            fill(group, slice(0, LENGTH))
            exchange.fold(group)
        exchange.combine_beside(4, fill)

    run = ops.capture(work)
    for seed in (1, 2):
        peer.got.clear()
        host = np.random.default_rng(seed).standard_normal((2, LENGTH)).astype(np.float32)
        ops.upload(host, fresh)
        run()
        ops.synchronize()
    found = np.full(LENGTH, np.nan, np.float32)
    for address, values in peer.got:
        start = (address - exchange.result[0].data.ptr) // 4
        found[start : start + len(values) // 4] = np.frombuffer(values, np.float32)
    return float(np.abs(found - (host[0] + host[1])).max())


@contextmanager
def _no_fork(launch: Any) -> Iterator[None]:
    launch._take(launch._second)
    yield
    launch._take(launch._first)


def nothing(_: Any) -> None:
    pass


def no_fork(ops: Any) -> None:
    ops._launch.aside = lambda: _no_fork(ops._launch)


def no_join(ops: Any) -> None:
    ops._launch.join = lambda: None


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("join", [1, 2])
@pytest.mark.parametrize("cuts", [(), CUTS[:1], CUTS[1:], CUTS])
def test_a_peer_gets_the_sum_in_buckets(lazy: bool, join: int, cuts: tuple[int, ...]) -> None:
    with fake_cupy.install(lazy=lazy):
        assert difference(nothing, cuts, join) == 0


@pytest.mark.parametrize("plant", [no_fork, no_join])
def test_a_missing_fork_or_join_is_refused(plant: Callable[[Any], None]) -> None:
    with fake_cupy.install() as cupy, pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
        difference(plant)


@pytest.mark.parametrize("join", [1, 2])
@pytest.mark.parametrize("early", CUTS)
def test_a_bucket_that_begins_a_block_too_early_is_found(early: int, join: int) -> None:
    with fake_cupy.install():
        assert difference(nothing, tuple(cut - BLOCK * (cut == early) for cut in CUTS), join) != 0


def test_a_tail_that_does_not_travel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "windows", lambda *arguments: windows(*arguments[:4], False, *arguments[5:]))
    with fake_cupy.install():
        assert np.isnan(difference(nothing))
