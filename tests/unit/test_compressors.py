"""Wires that send little: replicas stay bit-equal, what is not sent is kept, and what is sent is the largest or the lowest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.compressor import Compressor, Window
from ddpgd.comm.compressors.power_sgd import PowerSgd
from ddpgd.comm.compressors.top_k import TopK
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import TAIL_WORDS, Tail
from oracles import bits, uneven
from runs import train

Array = NDArray[Any]
Make = Callable[[Transport, Ops, int], Compressor]

WINDOWS = [Window(0, (40, 30)), Window(1216, (30,)), Window(1248, (30, 10)), Window(1568, (10,)), Window(1600, (4, 4))]
SIZE = 2048


def of_windows() -> Array:
    """A mask of the elements of tensors; others are zero."""
    mask = np.zeros(SIZE, np.float32)
    for window in WINDOWS:
        window.of(mask).fill(1)
    return mask


def top_k(
    density: float = 0.05, momentum: float = 0.0, masking: bool = False, clip_norm: float = 0.0, share: float = 1.0
) -> Make:
    def make(transport: Transport, ops: Ops, size: int) -> Compressor:
        return TopK(transport, ops, size, lambda _: density, lambda _: share, momentum, masking, clip_norm)

    return make


def power_sgd(rank: int = 2, share: float = 1.0) -> Make:
    return lambda transport, ops, size: PowerSgd(transport, ops, size, WINDOWS, rank, lambda _: share, 7)


WAYS: dict[str, Make] = {
    "topk": top_k(),
    "topk, momentum": top_k(momentum=0.9),
    "topk, masking": top_k(momentum=0.9, masking=True),
    "powersgd": power_sgd(),
}
over_ways = pytest.mark.parametrize("way", WAYS)
over_world_sizes = pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])


def summed(world_size: int, steps: list[Array], make: Make) -> list[tuple[list[Array], list[Array], dict[str, Array]]]:
    """The sums of each step's rows: every rank's gradients, tails, and what it has kept at the end."""

    def work(transport: Threads) -> tuple[list[Array], list[Array], dict[str, Array]]:
        ops = Reference()
        own = Exchange(transport, ops, SIZE, compressor=make(transport, ops, SIZE))
        found = []
        for number, rows in enumerate(steps):

            def leaf(micro_batch: int, grads: Array, tail: Array, rows: Array = rows) -> None:
                grads[...], tail[...] = rows[micro_batch, :SIZE], rows[micro_batch, SIZE:]

            own.round = number
            found.append([np.array(array) for array in own.sum(len(rows), leaf)])
        return [grads for grads, _ in found], [tail for _, tail in found], own.residuals

    return threads.run(world_size, work)


def make_steps(count: int, num_steps: int) -> list[Array]:
    steps = [uneven(31 * number + count, count, SIZE + TAIL_WORDS) for number in range(num_steps)]
    for rows in steps:
        rows[:, :SIZE] = np.clip(rows[:, :SIZE], -100, 100) * of_windows()
        rows[:, SIZE:] = np.arange(TAIL_WORDS)
        rows[:, SIZE + Tail.STOP] = 0
    return steps


@over_ways
@over_world_sizes
@pytest.mark.parametrize("count", [1, 3, 8])
def test_replicas_are_equal_and_the_tail_is_exact(way: str, world_size: int, count: int) -> None:
    steps = make_steps(count, 4)
    ranks = summed(world_size, steps, WAYS[way])
    for rank in ranks:
        for number, rows in enumerate(steps):
            np.testing.assert_array_equal(bits(rank[0][number]), bits(ranks[0][0][number]))
            np.testing.assert_array_equal(rank[1][number], rows[:, SIZE:].sum(axis=0))


@pytest.mark.parametrize("way", ["topk", "powersgd"])
@over_world_sizes
def test_what_was_meant_minus_what_was_applied_is_kept(way: str, world_size: int) -> None:
    steps = make_steps(6, 5)
    ranks = summed(world_size, steps, WAYS[way])
    meant = np.sum([rows[:, :SIZE].sum(axis=0, dtype=np.float64) for rows in steps], axis=0)
    applied = np.sum(ranks[0][0], axis=0, dtype=np.float64)
    kept = np.sum([rank[2]["kept"] for rank in ranks], axis=0, dtype=np.float64)
    np.testing.assert_allclose(applied + kept, meant, rtol=0, atol=2e-5 * np.abs(meant).max())
    assert np.linalg.norm(kept) > 0.1 * np.linalg.norm(meant)


@over_world_sizes
def test_the_largest_of_each_rank_are_sent_exactly(world_size: int) -> None:
    (rows,) = make_steps(world_size, 1)
    applied = summed(world_size, [rows], top_k(0.01))[0][0][0]
    wanted = np.zeros(SIZE, np.float32)
    for row in rows[:, :SIZE]:
        chosen = np.argsort(-np.abs(row), kind="stable")[: -(-SIZE // 100)]
        wanted[chosen] += row[chosen]
    np.testing.assert_array_equal(applied, wanted)


@pytest.mark.parametrize(("masking", "at_once", "left"), [(False, [4.0, 6.0, 7.0], 7.0), (True, [4.0, 4.0, 4.0], 0.0)])
def test_momentum_is_corrected_and_masked_on_demand(masking: bool, at_once: list[float], left: float) -> None:
    """Three steps of an element that is sent at once, and of one that is kept, by hand."""
    rows = np.zeros((1, SIZE + TAIL_WORDS), np.float32)
    rows[0, [3, 9]] = 4.0, 0.5
    (first, second, third), _, kept = summed(1, [rows] * 3, top_k(1e-6, momentum=0.5, masking=masking))[0]
    assert [first[3], second[3], third[3]] == at_once
    assert (first[9], second[9], third[9]) == (0.0, 0.0, 0.0)
    assert kept["velocity"][9] == 0.875
    assert kept["kept"][9] == 0.5 + 0.75 + 0.875
    assert kept["velocity"][3] == left


def test_what_a_rank_adds_is_clipped() -> None:
    rows = np.zeros((1, SIZE + TAIL_WORDS), np.float32)
    rows[0, :2] = 3.0, 4.0
    applied, _, _ = summed(1, [rows], top_k(1.0, clip_norm=1.0))[0]
    np.testing.assert_allclose(applied[0][:2], [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("make", [top_k, power_sgd])
def test_a_short_round_counts_for_its_share(make: Callable[..., Make]) -> None:
    """Residuals are in units of full rounds: half a round's sum is kept twice, and handed out halved."""
    (rows,) = make_steps(4, 1)
    full, half = summed(2, [rows], make())[0], summed(2, [rows], make(share=0.5))[0]
    np.testing.assert_allclose(half[0][0], full[0][0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(half[2]["kept"], 2 * full[2]["kept"], rtol=1e-4, atol=1e-3)


def test_a_matrix_of_low_rank_travels_whole() -> None:
    rng = np.random.default_rng(2)
    rows = np.zeros((3, SIZE + TAIL_WORDS), np.float32)
    left, right = rng.standard_normal((40, 2)), rng.standard_normal((2, 30))
    for row in rows:
        WINDOWS[0].of(row)[...] = (left * rng.standard_normal(2)) @ right
        WINDOWS[1].of(row)[...] = rng.standard_normal(30)
    applied, _, _ = summed(3, [rows], power_sgd())[0]
    np.testing.assert_allclose(applied[0], rows[:, :SIZE].sum(axis=0), rtol=0, atol=2e-5 * np.abs(rows).max())


def test_a_guess_that_faded_comes_back() -> None:
    """After rounds of zeros, a gradient is seen again."""
    nothing, (rows,) = np.zeros((2, SIZE + TAIL_WORDS), np.float32), make_steps(2, 1)
    applied, _, _ = summed(2, [nothing, nothing, rows], power_sgd())[0]
    assert not applied[0].any()
    assert np.linalg.norm(WINDOWS[0].of(applied[2])) > 0.1 * np.linalg.norm(WINDOWS[0].of(rows.sum(axis=0)))


@over_ways
def test_what_is_not_finite_shows_on_every_rank(way: str) -> None:
    steps = make_steps(3, 1)
    steps[0][1, 5] = np.nan
    for grads, _, _ in summed(3, steps, WAYS[way]):
        assert not np.isfinite(grads[0]).all()


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(("masking", "same"), [(False, "momentum"), (True, "sgd")])
def test_all_elements_sent_are_those_of_an_optimizer(masking: bool, same: str, tmp_path: Path) -> None:
    """Masking takes the momentum of what is sent: of everything, here."""
    given = {"weight_decay": 0.0, "steps": 12, "lr": 0.05}
    sparse = train(tmp_path / "topk", 3, wire="topk", topk_density=1.0, topk_masking=masking, **given)
    plain = train(tmp_path / "exact", 3, optimizer=same, **given)
    assert sparse["test_loss_mean"] == pytest.approx(plain["test_loss_mean"], rel=1e-4)


@pytest.mark.parametrize(("given", "least"), [({"wire": "topk"}, 20), ({"wire": "powersgd"}, 2)])
@pytest.mark.usefixtures("few_digits")
def test_a_run_learns_and_sends_little(given: dict[str, Any], least: float, tmp_path: Path) -> None:
    exact = train(tmp_path / "float32", 2, steps=40)
    little = train(tmp_path / "little", 2, steps=40, **given)
    assert little["wire"] == given["wire"]
    assert little["wire_bytes_per_step"] * least < exact["wire_bytes_per_step"]
    assert little["wire_compression"] > least
    assert little["test_accuracy"] > 0.8 * exact["test_accuracy"]
