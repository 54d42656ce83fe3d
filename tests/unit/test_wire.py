"""Lossy wires: replicas stay bit-equal, what is lost stays in its bound, and residuals hold all of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.codec import WireLoss
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.transports import threads
from ddpgd.comm.wires import FORMATS, WIRES
from ddpgd.kernels.philox import Purpose
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import BLOCK, TAIL_WORDS, Tail
from oracles import bits, largest_of_blocks, tree_fold, uneven
from runs import records, train

Array = NDArray[Any]

WORLD_SIZES = (1, 2, 3, 4, 5, 8)
SIZES = (1, 1000, 1024, 5000)

over_codecs = pytest.mark.parametrize("name", FORMATS)
over_world_sizes = pytest.mark.parametrize("world_size", WORLD_SIZES)


class Outcome:
    """A rank's sums, one after the other, and its residuals."""

    def __init__(self, own: Exchange) -> None:
        self.grads: list[Array] = []
        self.tails: list[Array] = []
        self.exchange = own
        self.losses: list[WireLoss | None] = []


def exchange(world_size: int, steps: list[Array], name: str, error_feedback: bool = False) -> list[Outcome]:
    """Sums the rows of each step over threads; each rank's outcome. A row is a gradient and its tail."""
    return threads.run(world_size, working(steps, name, error_feedback))


def working(steps: list[Array], name: str, error_feedback: bool) -> Callable[[Transport], Outcome]:
    """One rank's part of `exchange`."""
    size = steps[0].shape[1] - TAIL_WORDS

    def work(transport: Transport) -> Outcome:
        ops = Reference()
        own = Exchange(transport, ops, size, WIRES[name].codec(ops), error_feedback=error_feedback, seed=5)
        outcome = Outcome(own)
        for rows in steps:
            for group in own.groups(len(rows)):
                group.rows.whole[...] = rows[list(group.micro_batches)]
                own.fold(group)
            grads, tail = own.combine(len(rows), measure_error=True)
            outcome.grads.append(grads.copy())
            outcome.tails.append(tail.copy())
            outcome.losses.append(own.wire_loss)
        return outcome

    return work


def make_steps(count: int, size: int, num_steps: int) -> list[Array]:
    steps = [uneven(97 * number + size, count, size + TAIL_WORDS) for number in range(num_steps)]
    for rows in steps:
        rows[:, size:] = np.abs(rows[:, size:])
        rows[:, size + Tail.STOP] = 0
    return steps


@over_codecs
@over_world_sizes
@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3, 8, 13])
def test_replicas_are_equal_and_errors_within_the_bound(
    name: str, world_size: int, error_feedback: bool, size: int, count: int
) -> None:
    steps = make_steps(count, size, 3)
    outcomes = exchange(world_size, steps, name, error_feedback)
    for number, rows in enumerate(steps):
        for outcome in outcomes:
            np.testing.assert_array_equal(bits(outcome.grads[number]), bits(outcomes[0].grads[number]))
            np.testing.assert_array_equal(bits(outcome.tails[number]), bits(outcomes[0].tails[number]))
        np.testing.assert_allclose(outcomes[0].tails[number], rows[:, size:].sum(axis=0), rtol=1e-5)
    # Without residuals, or before there are any: each piece and the sum lose at most the bound, of their largest.
    exact = steps[0][:, :size].astype(np.float64)
    largest = np.sum([largest_of_blocks(row) for row in exact], axis=0)
    bound = 2 * FORMATS[name].bound * largest * (1 + FORMATS[name].bound) + 1e-6 * largest
    assert (np.abs(outcomes[0].grads[0] - exact.sum(axis=0)) <= bound).all()


@over_codecs
@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3, 8, 13])
def test_alone_has_the_bits_of_a_single_thread(name: str, error_feedback: bool, size: int, count: int) -> None:
    steps = make_steps(count, size, 3)
    alone = working(steps, name, error_feedback)(Alone())
    [single] = exchange(1, steps, name, error_feedback)
    for own, other in ((alone.grads, single.grads), (alone.tails, single.tails)):
        np.testing.assert_array_equal([bits(array) for array in own], [bits(array) for array in other])
    assert bool(alone.exchange.residuals) == error_feedback
    for kept, vector in alone.exchange.residuals.items():
        np.testing.assert_array_equal(bits(vector), bits(single.exchange.residuals[kept]))


@over_codecs
@over_world_sizes
@pytest.mark.parametrize("count", [1, 3, 8, 13])
def test_what_was_meant_minus_what_was_applied_is_in_the_residuals(name: str, world_size: int, count: int) -> None:
    size = 5000
    steps = make_steps(count, size, 6)
    outcomes = exchange(world_size, steps, name, error_feedback=True)
    meant = np.sum([rows[:, :size].astype(np.float64).sum(axis=0) for rows in steps], axis=0)
    applied = np.sum([grads.astype(np.float64) for grads in outcomes[0].grads], axis=0)
    kept = np.zeros(size)
    for outcome in outcomes:
        residuals = outcome.exchange.residuals
        kept += residuals["sent"].astype(np.float64) + residuals["owned"]
    scale = np.sum([np.abs(rows[:, :size]).sum(axis=0) for rows in steps], axis=0) + np.abs(kept)
    assert (np.abs(meant - applied - kept) <= 8 * np.finfo(np.float32).eps * largest_of_blocks(scale)).all()
    assert np.abs(kept).max() > 0


@over_codecs
def test_without_feedback_nothing_is_kept(name: str) -> None:
    assert all(outcome.exchange.residuals == {} for outcome in exchange(3, make_steps(8, 1000, 1), name))


@over_codecs
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_bytes_are_those_of_a_ring_whatever_the_number_of_micro_batches(name: str, world_size: int) -> None:
    size = 12 * BLOCK
    for count in (world_size, 13):
        outcomes = exchange(world_size, make_steps(count, size, 1), name)
        ring = 2 * (world_size - 1) * size // world_size * np.dtype(FORMATS[name].dtype).itemsize
        exponents = 2 * (world_size - 1) * size // BLOCK // world_size * 2
        tails = [TAIL_WORDS * 4 * (world_size - 1)] + [TAIL_WORDS * 4] * (world_size - 1)
        sent = [outcome.exchange.transport.bytes_sent for outcome in outcomes]
        assert sent == [ring + exponents + tail for tail in tails]
        assert outcomes[0].exchange.num_pieces(count) == 1


@over_codecs
def test_what_was_lost_is_measured(name: str) -> None:
    """Beside a round trip of the same values. Half of rank 0's are tiny; of one row it sends the second half alone."""
    size = 4 * BLOCK
    rows = np.random.default_rng(1).standard_normal((2, size + TAIL_WORDS)).astype(np.float32)
    rows[:, size + Tail.STOP] = 0
    rows[0, 10:60] = 1e-30
    again = rows[0, :size].copy()
    coded = WIRES[name].codec(Reference()).coded(again, 0, None)
    coded.encode(np.array([1, Purpose.ENCODE, 0], np.uint64))
    coded.decode()
    error = np.linalg.norm(again - rows[0, :size]) / np.linalg.norm(rows[0, :size])
    flushed = (again == 0).reshape(2, -1).mean(axis=1)
    assert 0 < error < 4 * FORMATS[name].bound
    for number, given, part in ((0, rows, 1), (1, rows[::-1].copy(), 0)):
        loss = exchange(2, [given], name)[number].losses[0]
        assert loss
        assert error / 2 < loss.relative_error < 2 * error
        assert loss.flushed_share == pytest.approx(flushed[part], abs=0.01)


def test_rounding_at_random_depends_on_seed_and_round_and_rank_and_has_the_right_mean() -> None:
    size, value = 2 * BLOCK, 0.3
    rows = np.full((1, size + TAIL_WORDS), value, np.float32)
    rows[:, ::BLOCK] = 127
    rows[:, size:] = 0
    outcomes = exchange(1, [rows] * 4, "int8")
    grads = outcomes[0].grads
    assert not np.array_equal(grads[0], grads[1])
    inner = np.concatenate([grad[1:BLOCK] for grad in grads])
    assert set(np.unique(inner)) == {0, 1}
    assert inner.mean() == pytest.approx(value, abs=4 * np.sqrt(0.21 / len(inner)))


@over_codecs
@pytest.mark.usefixtures("few_digits")
def test_a_run_learns_as_with_float32(name: str, tmp_path: Path) -> None:
    given = {"steps": 24, "error_feedback": False}
    exact = train(tmp_path / "float32", 3, **given)
    given["error_feedback"] = FORMATS[name].random
    lossy = train(tmp_path / name, 3, wire=name, **given)
    assert lossy["wire"] == name
    assert lossy["wire_bytes_per_step"] < 0.6 * exact["wire_bytes_per_step"]
    assert lossy["test_loss_mean"] == pytest.approx(exact["test_loss_mean"], rel=0.01 + 3 * FORMATS[name].bound)
    line = records(tmp_path / name)[3]
    assert 0 < line["wire_relative_error"] < 0.05
    assert 0 <= line["wire_flushed_norm_share"] <= line["wire_flushed_share"] < 1


def test_the_tail_is_never_compressed() -> None:
    steps = make_steps(4, 1000, 1)
    for outcome in exchange(4, steps, "int8"):
        np.testing.assert_array_equal(bits(outcome.tails[0]), bits(tree_fold(list(steps[0]))[1000:]))
