"""Parts of the tests of exchanges of two levels: how ranks lie on nodes, and exchanges over them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm import levels
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.traffic import Traffic
from ddpgd.comm.transport import Transport
from ddpgd.comm.wires import WIRES, Load
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import TAIL_WORDS, Tail
from oracles import uneven

Array = NDArray[Any]
Nodes = tuple[int, ...]

NODES: list[Nodes] = [(1,), (1, 1), (2,), (1, 2), (2, 1), (1, 3), (2, 2), (3, 1), (4,), (1, 1, 2)]
"""Of up to 4 ranks."""
MORE_NODES: list[Nodes] = [(2, 3), (1, 6), (4, 3), (3, 3, 2), (2, 2, 2, 2), (4, 4), (1, 5, 2)]
SIZES = (0, 1, 1000, 1024, 5000, 12 * 1024)
COUNTS = (8, 1, 2, 3, 7, 1, 13, 64)


def make_rows(count: int, size: int) -> Array:
    """Gradients and their tails, (count, size + TAIL_WORDS)."""
    rows = uneven(count * 7919 + size, count, size + TAIL_WORDS)
    rows[:, size + Tail.STOP] = 0
    return rows


def make(transport: Transport, nodes: Nodes, size: int, wire: str = "float32", feedback: bool = False) -> Exchange:
    ops = Reference()
    groups = levels.split(transport, nodes)
    return Exchange(transport, ops, size, WIRES[wire].codec(ops), error_feedback=feedback, seed=3, levels=groups)


def sums(exchange: Exchange, rows: Array, stop: bool = False) -> tuple[Array, Array]:
    """Copies of the sum of `rows`."""

    def leaf(micro_batch: int, grads: Array, tail: Array) -> None:
        assert not tail.any()
        grads[...], tail[...] = rows[micro_batch, : exchange.size], rows[micro_batch, exchange.size :]

    grads, tail = exchange.sum(len(rows), leaf, stop)
    return grads.copy(), tail.copy()


def counted(transport: Transport, nodes: Nodes, size: int, wire: str, count: int) -> tuple[int, int]:
    """The bytes that this rank sends inside its node, and to others, as its groups count them."""
    exchange = make(transport, nodes, size, wire)
    sums(exchange, np.ones((count, size + TAIL_WORDS), np.float32))
    between = exchange.form.bytes_between
    assert exchange.transport.bytes_sent == 0
    return exchange.bytes_sent - between, between


def predicted(nodes: Nodes, size: int, wire: str, count: int) -> list[Traffic]:
    """The traffic inside nodes, and between them."""
    return WIRES[wire].traffic(Load(size, count, sum(nodes), nodes=nodes))
