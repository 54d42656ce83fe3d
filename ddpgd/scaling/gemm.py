"""The matrix products of a training step, and the time that they take alone."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from ddpgd.kernels.device_ops import Array

_NUM_ROUNDS = 12
_FIRST_ROUNDS = 2


def products(sizes: Sequence[int], rows: int) -> Iterator[tuple[str, Array, Array]]:
    """Yields the products of a forward and backward pass, with random factors.

    Args:
        sizes: Widths of the network's layers, as in (784, 128, 10).
        rows: Samples of a micro-batch.

    Yields:
        Name, left factor and right factor of each, float32.
    """
    random = np.random.default_rng(0)
    for number, (k, n) in enumerate(pairwise(sizes)):
        x, weight, dout = (random.normal(size=shape).astype(np.float32) for shape in ((rows, k), (k, n), (rows, n)))
        yield f"forward {rows}x{k}x{n}", x, weight
        yield f"backward params {k}x{rows}x{n}", x.T, dout
        if number > 0:
            yield f"backward input {rows}x{n}x{k}", dout, weight.T


def flop_of(left: Array, right: Array) -> int:
    """Returns the floating-point operations of one product."""
    return int(2 * left.shape[0] * left.shape[1] * right.shape[1])


def flop(sizes: Sequence[int], rows: int) -> int:
    """Returns the floating-point operations of all products of a pass over `rows` samples."""
    return sum(flop_of(left, right) for _, left, right in products(sizes, rows))


def seconds(left: Array, right: Array) -> float:
    """Returns the median time of one product in NumPy."""
    return statistics.median(_times_s(left, right))


def best_flop_per_s(side: int) -> float:
    """Returns the rate of this machine in the fastest of several products of two (side, side) matrices in NumPy."""
    factor = np.ones((side, side), np.float32)
    return flop_of(factor, factor) / min(_times_s(factor, factor))


def _times_s(left: Array, right: Array) -> list[float]:
    out = np.empty((left.shape[0], right.shape[1]), np.float32)
    return times_of_calls_s(lambda: np.matmul(left, right, out=out), flop_of(left, right))


def times_of_calls_s(multiply: Callable[[], object], num_flop: int) -> list[float]:
    """Returns the mean time of a call in each of ten rounds, which take about 0.1 s each at 2 GFLOP/s."""
    num_calls = max(1, round(2e8 / num_flop))
    times = []
    for _ in range(_NUM_ROUNDS):
        started = time.perf_counter()
        for _ in range(num_calls):
            multiply()
        times.append((time.perf_counter() - started) / num_calls)
    return times[_FIRST_ROUNDS:]
