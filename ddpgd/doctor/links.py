"""Latency and rate between each two ranks, one pair after the other."""

import statistics
import time
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.transport import Transport

LATENCY_ROUNDS = 30
RATE_ROUNDS = 3
FIRST_BYTES = 64 * 1024
MOST_BYTES = 8 * 1024 * 1024
ENOUGH_S = 0.02
"""A message that takes so long tells the rate."""


class Pair(NamedTuple):
    """Two ranks, and what a message takes from one to the other."""

    first: int
    second: int
    latency_s: float
    bytes_per_s: float


def measure(transport: Transport) -> list[Pair]:
    """All pairs; every rank calls it, and gets the same."""
    found = []
    for first, second in combinations(range(transport.world_size), 2):
        transport.barrier()
        own = _pair(transport, first, second) if transport.rank in (first, second) else None
        found.append(transport.all_gather_objects(own)[first])
    return [pair for pair in found if pair is not None]


def _pair(transport: Transport, first: int, second: int) -> Pair:
    other = second if transport.rank == first else first
    latency_s = _trip_s(transport, other, 8, LATENCY_ROUNDS)
    length = FIRST_BYTES
    while True:
        taken_s = _trip_s(transport, other, length, RATE_ROUNDS)
        # Both decide by what the first of them saw.
        seen = np.array([taken_s if transport.rank == first else 0.0])
        taken_s = float((_swap(transport, other, seen) + seen)[0])
        if taken_s > ENOUGH_S or length >= MOST_BYTES:
            return Pair(first, second, latency_s, length / max(taken_s - latency_s, 1e-9))
        length *= 4


def _trip_s(transport: Transport, other: int, num_bytes: int, rounds: int) -> float:
    """Half a round trip, median."""
    sent = np.zeros(num_bytes, np.uint8)
    is_first = transport.rank < other
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for sends in (is_first, not is_first):
            _exchange(transport, other, [sent] if sends else [], [] if sends else [sent])
        times.append((time.perf_counter() - started) / 2)
    return statistics.median(times[1:])


def _swap(transport: Transport, other: int, value: NDArray[np.float64]) -> NDArray[np.float64]:
    theirs = np.zeros_like(value)
    _exchange(transport, other, [value], [theirs])
    return theirs


def _exchange(
    transport: Transport, other: int, sends: list[NDArray[np.generic]], receives: list[NDArray[np.generic]]
) -> None:
    """Only these two take part: lists of all others are empty."""
    peers = range(transport.world_size)
    transport.all_to_all(
        [sends if peer == other else [] for peer in peers], [receives if peer == other else [] for peer in peers]
    )
