"""The model of a step: its bytes are those that are sent, and its times follow from what it is told."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddpgd.comm.cluster import Cluster, Link
from ddpgd.comm.compressors.power_sgd import num_narrow
from ddpgd.comm.transports import threads
from ddpgd.comm.wires import FORMATS, WIRES
from ddpgd.scaling.advice import advise
from ddpgd.scaling.cost_model import Coding, Costs, Work, predict
from two_level_laws import counted
from wire_cases import SIZE, WINDOWS, count_bytes

Array = NDArray[Any]

ALONE = Cluster(1, Link(1e-5, 1e9), Link(1e-4, 1e8))
COSTS = Costs(1e-4, 1e-5, update_s=1e-4)
WORK = Work(SIZE, 1024, 64)


def sent(world_size: int, num_micro_batches: int, wire: str, reduce: str, size: int = SIZE) -> tuple[int, int]:
    """Returns what a real exchange over threads counts: bytes of the rank that sends most, and pieces."""
    found = threads.run(world_size, lambda own: count_bytes(own, num_micro_batches, wire, reduce, size))
    return max(count for count, _ in found), found[0][1]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("num_micro_batches", [4, 7, 13])
def test_predicted_bytes_and_pieces_are_counted_ones(wire: str, world_size: int, num_micro_batches: int) -> None:
    work = Work(SIZE, 64 * num_micro_batches, 64, wire, density=0.01, narrow=num_narrow(WINDOWS, 2))
    found = predict(work, COSTS, ALONE, world_size)
    num_bytes, num_pieces = sent(world_size, num_micro_batches, wire, "ordered")
    assert found.num_pieces == num_pieces
    assert found.wire_bytes == num_bytes


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_small_sums_travel_in_one_shot(world_size: int) -> None:
    num_bytes, _ = sent(world_size, 4, "float32", "ordered", size=1024)
    found = predict(Work(1024, 256, 64), COSTS, ALONE, world_size)
    assert found.wire_bytes == num_bytes
    assert found.latency_s < predict(WORK, COSTS, ALONE, world_size).latency_s


@pytest.mark.parametrize("wire", ["float32", *FORMATS])
@pytest.mark.parametrize(("ranks_per_node", "world_size"), [(2, 4), (3, 4), (2, 5), (4, 4), (1, 3)])
@pytest.mark.parametrize("num_micro_batches", [4, 7, 13])
def test_predicted_bytes_of_two_levels_are_counted_ones(
    wire: str, ranks_per_node: int, world_size: int, num_micro_batches: int
) -> None:
    cluster = replace(ALONE, ranks_per_node=ranks_per_node)
    nodes = cluster.nodes(world_size)
    found = predict(Work(SIZE, 64 * num_micro_batches, 64, wire, exchange="two-level"), COSTS, cluster, world_size)
    sent = threads.run(world_size, lambda own: counted(own, nodes, SIZE, wire, num_micro_batches))
    assert found.exchange == "two-level"
    assert found.wire_bytes == max(inside + between for inside, between in sent)
    assert found.between_bytes == max(between for _, between in sent)


def test_two_levels_by_hand() -> None:
    """Two nodes of four ranks: three quarters of the vector twice inside, half of it out of each node twice."""
    costs, cluster = replace(COSTS, add_s=1e-9), Cluster(4, Link(1e-6, 1e9), Link(1e-4, 1e8))
    work = Work(SIZE, 8 * 64, 64, exchange="two-level")
    found = predict(work, costs, cluster, 8)
    assert found.latency_s == pytest.approx(2 * 1e-6 * 1.2 + 2 * 1e-4)
    inside, between, tail = 2 * 0.75 * 4 * SIZE, 4 * SIZE, 32
    assert found.transfer_s == pytest.approx((inside + 3 * tail) / 1e9 + (between + tail) / 1e8)
    assert found.coding_s == pytest.approx(SIZE * (3 / 4 + 1 / 8) * 1e-9)
    lossy = predict(replace(work, wire="float16"), replace(costs, add_s=0.0, coding=Coding(1e-8, 1e-9)), cluster, 8)
    assert lossy.coding_s == pytest.approx(SIZE / 4 * (1.5e-8 + 2e-9))
    flat = replace(work, exchange="flat")
    assert predict(replace(work, exchange="auto"), costs, cluster, 8) == found
    assert found.step_s < predict(flat, costs, cluster, 8).step_s
    fast = replace(cluster, between=Link(1e-9, 1e15))
    assert predict(replace(work, exchange="auto"), costs, fast, 8) == predict(flat, costs, fast, 8)


def test_one_rank_is_its_own_measure() -> None:
    found = predict(WORK, COSTS, ALONE, 1)
    assert found.efficiency == 1
    assert found.exchange_s == found.wait_s == found.wire_bytes == 0
    assert found.step_s == pytest.approx(16 * 1e-4 + 1024 * 1e-5 + 1e-4)


def test_a_step_by_hand() -> None:
    """Two ranks, one a node: half the computing, two rounds, and one vector sent over 100 MB a second."""
    costs = replace(COSTS, add_s=1e-9, jitter=0.1)
    found = predict(WORK, costs, ALONE, 2)
    assert found.compute_s == pytest.approx(8 * 1e-4 + 512 * 1e-5 + 1e-4)
    assert found.wait_s == pytest.approx(0.1 * found.compute_s * math.sqrt(2 * math.log(2)))
    assert found.latency_s == pytest.approx(2e-4)
    assert found.transfer_s == pytest.approx((4 * SIZE + 32) / 1e8)
    assert found.coding_s == pytest.approx(SIZE / 2 * 1e-9)
    parts = found.compute_s, found.wait_s, found.latency_s, found.transfer_s, found.coding_s
    assert found.step_s == pytest.approx(sum(parts))
    assert found.efficiency == pytest.approx(found.one_rank_s / (2 * found.step_s))


def test_ranks_of_a_node_share_its_link_and_use_their_own_inside() -> None:
    inside, between = Link(1e-6, 1e9), Link(1e-4, 1e8)
    within = predict(WORK, COSTS, Cluster(4, inside, between), 4)
    assert within.transfer_s == pytest.approx(within.wire_bytes / 1e9)
    apart = predict(WORK, COSTS, Cluster(1, inside, between), 8)
    shared = predict(WORK, COSTS, Cluster(4, inside, between), 8)
    assert shared.wire_bytes == apart.wire_bytes
    # Four ranks of a node, each of which sends four of its seven parts out.
    assert shared.transfer_s == pytest.approx(4 * 4 / 7 * apart.transfer_s)
    ring = predict(replace(WORK, reduce="fast"), COSTS, Cluster(4, inside, between), 8)
    assert ring.transfer_s == pytest.approx(ring.wire_bytes / 1e8)


@given(
    world_size=st.integers(2, 64),
    local_steps=st.sampled_from([1, 4, 64]),
    wire=st.sampled_from([name for name in WIRES if name != "powersgd"]),
)
def test_less_never_takes_longer(world_size: int, local_steps: int, wire: str) -> None:
    work = Work(10**6, 64 * world_size, 64, wire, local_steps=local_steps, density=0.01)
    here = predict(work, COSTS, ALONE, world_size)
    assert 0 < here.efficiency <= 1
    faster = replace(ALONE, between=Link(1e-5, 1e9))
    assert predict(work, COSTS, faster, world_size).step_s <= here.step_s
    assert predict(replace(work, local_steps=2 * local_steps), COSTS, ALONE, world_size).step_s <= here.step_s
    assert predict(replace(work, overlap=0.5), COSTS, ALONE, world_size).step_s <= here.step_s


def test_coding_is_told_apart_from_transfer() -> None:
    costs = replace(COSTS, coding=Coding(1e-8, 1e-9))
    lossy = predict(replace(WORK, wire="float16"), costs, ALONE, 4)
    assert lossy.coding_s == pytest.approx(SIZE * (1.25e-8 + 2e-9))
    assert lossy.transfer_s == pytest.approx(predict(WORK, costs, ALONE, 4).transfer_s / 2, rel=0.01)


@pytest.mark.parametrize(
    ("link", "costs", "said"),
    [
        (Link(1e-9, 1e12), COSTS, "nothing needs to change"),
        (Link(1e-2, 1e12), COSTS, "latency-bound"),
        (Link(1e-9, 1e7), COSTS, "bandwidth-bound"),
        (Link(1e-9, 1e12), replace(COSTS, jitter=0.5), "waiting for the slowest rank"),
        (Link(1e-9, 1e12), replace(COSTS, add_s=1e-6), "encoding costs most"),
    ],
)
def test_advice_names_what_bounds_a_step(link: Link, costs: Costs, said: str) -> None:
    (sentence,) = advise(lambda _: WORK, costs, Cluster(1, link, link), [1, 4], {}, 60_000)
    assert sentence.startswith("At 4 ranks ")
    assert said in sentence


def test_advice_is_what_the_model_says_of_the_change() -> None:
    cluster = Cluster(1, ALONE.between, ALONE.between)
    (sentence,) = advise(lambda _: WORK, COSTS, cluster, [4], {"float16": COSTS}, 60_000)
    better = predict(replace(WORK, global_batch=4096), COSTS, cluster, 4).efficiency
    assert np.isfinite(better)
    assert f"--accumulate 16 (a global batch of 4,096) would give {100 * better:.0f} %" in sentence


def test_advice_names_the_least_of_each_kind() -> None:
    cluster = Cluster(1, ALONE.between, ALONE.between)
    (sentence,) = advise(lambda _: WORK, COSTS, cluster, [4], {}, 60_000)
    assert sentence.count("--accumulate") == 1
    assert sentence.count("--sync local") <= 1
