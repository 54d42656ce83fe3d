"""Exchanges of every wire, for laws over `WIRES`: small compressors, and rows to sum."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.compressor import Setup, Window
from ddpgd.comm.compressors.power_sgd import num_narrow
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.comm.wires import WIRES, Load
from ddpgd.config.schema import OPTIONS
from ddpgd.kernels.reference.backend import Reference

WINDOWS = [Window(0, (96, 64)), Window(6144, (96, 64))]
SIZE = 12 * 1024


def make_exchange(
    transport: Transport, wire: str, reduce: str = "ordered", size: int = SIZE, sharded: bool = False
) -> Exchange:
    """Returns an exchange by `wire`, whose options have their defaults."""
    ops, row = Reference(), WIRES[wire]
    options = {name: OPTIONS[name].default for name in row.options}
    setup = Setup(transport, ops, size, WINDOWS, lambda _: 1.0, lambda _: 0, seed=0, options=options)
    compressor = row.make(setup) if row.make else None
    return Exchange(transport, ops, size, row.codec(ops), reduce=reduce, compressor=compressor, sharded=sharded)


def count_bytes(transport: Transport, num_micro_batches: int, wire: str, reduce: str, size: int) -> tuple[int, int]:
    """Returns the bytes that this rank sends in one sum, as its transports count them, and the largest number of pieces."""
    exchange = make_exchange(transport, wire, reduce, size)
    before = exchange.bytes_sent

    def gradient(_micro_batch: int, grads: NDArray[Any], _tail: NDArray[Any]) -> None:
        grads.fill(np.float32(1))

    exchange.sum(num_micro_batches, gradient)
    return exchange.bytes_sent - before, exchange.num_pieces(num_micro_batches)


def make_load(size: int, num_micro_batches: int, world_size: int, reduce: str) -> Load:
    """Returns the same sum as `wires` describes it."""
    density, rank = OPTIONS["topk_density"].default, OPTIONS["powersgd_rank"].default
    return Load(size, num_micro_batches, world_size, density, num_narrow(WINDOWS, rank), reduce)


def cases() -> list[tuple[str, str, int]]:
    """Returns wires, ways to reduce, and sizes: with and without one shot, none but tails, and a ragged last block."""
    found = [(name, "ordered", SIZE) for name in WIRES]
    found += [(name, "ordered", size) for name, wire in WIRES.items() if not wire.make for size in (0, 1000, 5001)]
    return [*found, ("float32", "fast", SIZE), ("float32", "fast", 1001)]
