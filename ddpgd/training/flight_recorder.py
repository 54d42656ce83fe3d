"""A flight recorder: checksums of what each step takes in and makes on a rank (`--record`), for `ddpgd bisect`.

A vector is seen as rows of 256 words of 64 bits, which are summed modulo 2^64 by row, by column, and by unit of the layout. The
upper and the lower half of the sums of rows are added up, and added up times their row; so are those of columns. Where one word
differs, these few numbers tell which.
"""

from collections.abc import Callable, Sequence

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
    words = vector.view(np.uint64).reshape(-1, COLUMNS)
    of_rows: Words = np.zeros(size // ROW_ELEMENTS, np.uint64)
    first = first_element // ROW_ELEMENTS
    of_rows[first : first + len(words)] = np.add.reduce(words, axis=1)
    of_columns: Words = np.add.reduce(words, axis=0)
    of_units = np.add.reduceat(of_rows, [start // ROW_ELEMENTS for start in unit_starts])
    return np.concatenate([of_units, _weighed(of_rows), _weighed(of_columns)])


def place(before: Words, after: Words) -> int | None:
    """Returns which one of several sums has changed, by what `_weighed` makes of them; None: none or more than one has."""
    high, low, times_high, times_low = (after - before).view(np.int64).tolist()
    times, by = (times_high, high) if high else (times_low, low)
    if by == 0 or times % by:
        return None
    found = int(times // by)
    return found if (high * found, low * found) == (times_high, times_low) else None


def _weighed(sums: Words) -> Words:
    """Returns the sums of the upper and of the lower halves, and those of them times their place: uint64 (4,).

    No product is longer than 64 bits, so differences can be divided.
    """
    places, halves = np.arange(len(sums), dtype=np.uint64), (sums >> _HALF, sums & _LOWER)
    return np.array([np.add.reduce(half) for half in (*halves, *(half * places for half in halves))], np.uint64)


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
        zeros: Words = np.zeros(len(self._unit_starts) + NUM_WEIGHED, np.uint64)
        self._words.append(sum((self._of(piece, 0) for piece in pieces), zeros))

    def summed(self, grads: Array) -> None:
        """Records the sum over all ranks, and writes the step."""
        self._words.append(self._of(grads[self._own], self._own.start))
        self._write(np.concatenate(self._words).tobytes())

    def _of(self, vector: Array, first_element: int) -> Words:
        return checksums(self._ops.to_host(vector), first_element, self._unit_starts, self._size)
