"""A flight recorder: checksums of what each step takes in and makes on a rank (`--record`), for `ddpgd bisect`.

A vector is seen as rows of 256 words of 64 bits, which are summed modulo 2^64 by row, by column, and by unit of the layout. The
upper and the lower half of the sums of rows are added up, and added up times their row; so are those of columns. Where one word
differs, these few numbers tell which.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ddpgd.data.batches import Batches
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops

COLUMNS = 256
ROW_ELEMENTS = 2 * COLUMNS
"""Elements of float32 in a row."""
PHASES = ("params", "input", "gradient", "sum")
"""What is recorded, in the order of a step: the params that it begins with, the samples of the rank's micro-batches, the rank's
gradient before the exchange, the sum after it."""
NUM_WEIGHED = 8
"""Checksums of a vector beside those of its units: four of its rows, four of its columns."""

Words = NDArray[np.uint64]

_HALF, _LOWER = np.uint64(32), np.uint64(2**32 - 1)


def checksums(vector: NDArray[np.float32], first_element: int, unit_starts: Sequence[int], size: int) -> Words:
    """Returns the checksums of the elements from `first_element` on, as if the others were 0: uint64 (units + 8,).

    Args:
        vector: Float32 (n,): whole rows.
        first_element: The place of its first element, the beginning of a row.
        unit_starts: First elements of the units, ascending from 0, each the beginning of a row.
        size: Elements of the whole.
    """
    words, num_units = vector.view(np.uint64).reshape(-1, COLUMNS), len(unit_starts)
    of_rows: Words = np.zeros(size // ROW_ELEMENTS, np.uint64)
    first = first_element // ROW_ELEMENTS
    np.add.reduce(words, axis=1, out=of_rows[first : first + len(words)])
    found: Words = np.empty(num_units + NUM_WEIGHED, np.uint64)
    np.add.reduceat(of_rows, [start // ROW_ELEMENTS for start in unit_starts], out=found[:num_units])
    _weigh(of_rows, found[num_units : num_units + 4])
    _weigh(np.add.reduce(words, axis=0), found[num_units + 4 :])
    return found


def place(before: Words, after: Words) -> int | None:
    """Returns which one of several sums has changed, by what `_weigh` makes of them; None: none or more than one has."""
    high, low, times_high, times_low = (after - before).view(np.int64).tolist()
    times, by = (times_high, high) if high else (times_low, low)
    if by == 0 or times % by:
        return None
    found = int(times // by)
    return found if (high * found, low * found) == (times_high, times_low) else None


def _weigh(sums: Words, into: Words) -> None:
    """Puts the sums of the upper and of the lower halves, and those of them times their place, into uint64 (4,).

    No product is longer than 64 bits, so differences can be divided.
    """
    halves = np.empty((2, len(sums)), np.uint64)
    np.right_shift(sums, _HALF, out=halves[0])
    np.bitwise_and(sums, _LOWER, out=halves[1])
    np.matmul(halves, _weights(len(sums)), out=into.reshape(2, 2).T)


@cache
def _weights(count: int) -> Words:
    """Returns 1 and the place of each of so many sums: uint64 (count, 2)."""
    return np.column_stack([np.ones(count, np.uint64), np.arange(count, dtype=np.uint64)])


class FlightRecorder:
    """Records a rank's steps; `write` gets the words of each, once it is summed: step, input, and a vector's for each phase.

    Args:
        ops: Where the vectors are.
        batches: The samples of steps.
        micro_batches: Returns the rank's micro-batches, of so many in a step.
        unit_starts: As for `checksums`.
        own: The part of the sum that this rank gets.
        write: Takes uint64 words as bytes.
    """

    def __init__(
        self,
        ops: Ops,
        batches: Batches,
        micro_batches: Callable[[int], range],
        unit_starts: Sequence[int],
        own: slice,
        write: Callable[[bytes], object],
    ) -> None:
        self._ops = ops
        self._batches = batches
        self._micro_batches = micro_batches
        self._unit_starts = unit_starts
        self._own = own
        self._write = write
        self._words: list[Words] = []
        self._size = 0

    def begins(self, step: int, params: Array) -> None:
        """Records what step number `step`, from 0, begins with."""
        self._size = len(params)
        samples = 0
        for number in self._micro_batches(self._batches.num_micro_batches(step)):
            samples += (number + 1) * int(self._batches.indices(step, number).sum() + 1)
        self._words = [np.array([step + 1, samples], np.uint64), self._of(params, 0)]

    def computed(self, pieces: Sequence[Array]) -> None:
        """Records this rank's gradient: the sums that it sends, added up."""
        of_pieces = [self._of(piece, 0) for piece in pieces]
        zeros: Words = np.zeros(len(self._unit_starts) + NUM_WEIGHED, np.uint64)
        self._words.append(of_pieces[0] if len(of_pieces) == 1 else sum(of_pieces, zeros))

    def summed(self, grads: Array) -> None:
        """Records the sum over all ranks, and writes the step."""
        self._words.append(self._of(grads[self._own], self._own.start))
        self._write(np.concatenate(self._words).tobytes())

    def _of(self, vector: Array, first_element: int) -> Words:
        return checksums(self._ops.to_host(vector), first_element, self._unit_starts, self._size)
