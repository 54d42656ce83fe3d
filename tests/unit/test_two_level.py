"""The exchange of two levels over threads: the bits of the flat one, and the bytes that are predicted."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm import levels, traffic
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.traffic import Level
from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.wires import FORMATS, WIRES
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import BLOCK, TAIL_WORDS, Tail
from oracles import bits, largest_of_blocks, tree_fold
from two_level_laws import COUNTS, MORE_NODES, NODES, SIZES, Nodes, counted, make, make_rows, predicted, sums

Array = NDArray[Any]

over_nodes = pytest.mark.parametrize("nodes", NODES + MORE_NODES)


@over_nodes
@pytest.mark.parametrize("size", SIZES)
def test_every_rank_holds_the_canonical_sum(nodes: Nodes, size: int) -> None:
    """Over one exchange, which serves steps of any number of micro-batches, in any order; of more ranks than those, too."""

    def work(transport: Threads) -> list[tuple[Array, Array]]:
        exchange = make(transport, nodes, size)
        return [sums(exchange, rows[:count]) for count in COUNTS]

    rows = make_rows(max(COUNTS), size)
    results = threads.run(sum(nodes), work)
    for number, count in enumerate(COUNTS):
        wanted = bits(tree_fold(list(rows[:count])))
        for found in results:
            grads, tail = found[number]
            np.testing.assert_array_equal(bits(grads), wanted[:size])
            np.testing.assert_array_equal(bits(tail), wanted[size:])


@over_nodes
@pytest.mark.parametrize("count", [1, 3, 8])
def test_negative_zero_survives(nodes: Nodes, count: int) -> None:
    rows = np.full((count, 3000 + TAIL_WORDS), -0.0, np.float32)
    for grads, _ in threads.run(sum(nodes), lambda own: sums(make(own, nodes, 3000), rows)):
        assert np.signbit(grads).all()


@over_nodes
@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("wire", ["float32", "float16"])
def test_a_stop_request_of_any_rank_reaches_all_and_does_not_linger(nodes: Nodes, count: int, wire: str) -> None:
    rows = make_rows(count, 1024)
    world = sum(nodes)

    def work(transport: Threads) -> list[float]:
        exchange = make(transport, nodes, 1024, wire)
        asking = [*range(world), None]
        found = [sums(exchange, rows, stop=transport.rank == rank)[1][Tail.STOP] for rank in asking]
        return [*found, sums(exchange, rows, stop=True)[1][Tail.STOP]]

    assert threads.run(world, work) == [[*[1] * world, 0, world]] * world


@over_nodes
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("size", [1, 5000])
def test_lossy_wires_leave_replicas_equal_within_their_bound_and_lose_nothing(
    nodes: Nodes, name: str, error_feedback: bool, size: int
) -> None:
    counts = (1, 3, 8, 13)
    all_rows = [make_rows(count, size) for count in counts]

    def work(transport: Threads) -> tuple[list[tuple[Array, Array]], list[Array]]:
        exchange = make(transport, nodes, size, name, error_feedback)
        return [sums(exchange, rows) for rows in all_rows], list(exchange.residuals.values())

    results = threads.run(sum(nodes), work)
    meant, applied, scale = np.zeros(size), np.zeros(size), np.zeros(size)
    for number, rows in enumerate(all_rows):
        grads, tail = results[0][0][number]
        for found, _ in results:
            np.testing.assert_array_equal(bits(found[number][0]), bits(grads))
            np.testing.assert_array_equal(bits(found[number][1]), bits(tail))
        exact = rows[:, :size].astype(np.float64)
        meant, applied, scale = meant + exact.sum(axis=0), applied + grads, scale + np.abs(exact).sum(axis=0)
        if number == 0:
            bound = 2.1 * FORMATS[name].bound * largest_of_blocks(np.abs(exact).sum(axis=0))
            assert (np.abs(grads - exact.sum(axis=0)) <= bound).all()
    if error_feedback:
        kept = sum(residual.astype(np.float64) for _, residuals in results for residual in residuals)
        limit = 16 * np.finfo(np.float32).eps * largest_of_blocks(scale + np.abs(kept))
        assert (np.abs(meant - applied - kept) <= limit).all()


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if not format.random])
def test_lossy_wires_encode_between_nodes_only(name: str) -> None:
    """Two nodes of which one has two ranks lose what two ranks do whose gradients are the nodes' exact sums."""
    rows = make_rows(3, 5000)
    node_sums = np.array([rows[0], rows[1] + rows[2]])
    found = threads.run(3, lambda own: sums(make(own, (1, 2), 5000, name), rows))
    wanted = threads.run(2, lambda own: sums(make(own, (1, 1), 5000, name), node_sums))
    flat = threads.run(2, lambda own: sums(Exchange(own, Reference(), 5000, WIRES[name].codec(Reference())), node_sums))
    for exact, others in ((tree_fold(list(rows))[:5000], False), (wanted[0][0], True), (flat[0][0], True)):
        assert np.array_equal(bits(found[0][0]), bits(exact)) == others


@over_nodes
@pytest.mark.parametrize("wire", ["float32", *FORMATS])
@pytest.mark.parametrize("count", [1, 4, 13])
def test_counted_bytes_are_the_tables(nodes: Nodes, wire: str, count: int) -> None:
    for size in SIZES:
        found = threads.run(sum(nodes), lambda own, size=size: counted(own, nodes, size, wire, count))
        inside, between = predicted(nodes, size, wire, count)
        assert list(zip(inside.num_bytes, between.num_bytes, strict=True)) == found
        assert (inside.level, between.level) == (Level.INSIDE, Level.BETWEEN)


def test_bytes_by_hand() -> None:
    """4 blocks on 2 nodes of 2 ranks, a micro-batch each: every rank is sent half of the vector inside, a quarter between."""
    inside, between = predicted((2, 2), 4 * BLOCK, "float32", 4)
    half, tail = 8 * BLOCK, 4 * TAIL_WORDS
    assert inside.num_bytes == (2 * half + tail, 2 * half + tail) * 2
    assert between.num_bytes == (half, half + tail, half, half + tail)
    flat = traffic.ordered(4 * BLOCK, [1] * 4, lambda n: 4 * n, exact=True)
    # Of the flat form, two thirds go to the two ranks of the other node.
    assert sum(between.num_bytes) < 0.51 * sum(flat.num_bytes) * 2 / 3


def test_two_exchanges_of_the_same_groups_keep_apart() -> None:
    def work(transport: Threads) -> None:
        groups = levels.split(transport, (2, 2))
        first, second = (Exchange(transport, Reference(), 2000, levels=groups) for _ in range(2))
        for exchange, count in ((first, 5), (second, 3), (first, 2)):
            rows = make_rows(count, 2000)
            np.testing.assert_array_equal(sums(exchange, rows)[0], tree_fold(list(rows))[:2000])
        assert first.bytes_sent > second.bytes_sent > groups.inside.bytes_sent == 0

    threads.run(4, work)


def test_sums_of_whole_vectors_have_one_level() -> None:
    with pytest.raises(ValueError, match="two levels"):
        Exchange(Alone(), Reference(), 4, reduce="fast", levels=levels.split(Alone(), [1]))
