"""Sums of clients' changes: in the clear, or masked so that no single one can be read.

Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", 2017.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import Purpose, words
from ddpgd.training.federated.rounds import Rounds

UNIT = 2.0**-24
"""The resolution of fixed point: weighted changes lie in -128 to 128, and so does their sum."""
_LIMB_BITS = 11
_NUM_LIMBS = 3
MOST_CLIENTS = 1 << (24 - _LIMB_BITS)
"""Clients in a round whose limbs float32 adds exactly."""

Words = NDArray[np.uint32]
Example = tuple[int, dict[str, list[int]]]


class Sum(Protocol):
    """A way to add clients' changes through an exchange.

    Attributes:
        size: The length of a client's row in the exchange.
        example: A round, and the first words of a change in it and of what the server gets of that; None: there are none.
    """

    size: int
    example: Example | None

    def put(self, number: int, position: int, change: Array, share: float, out: Array) -> None:
        """Puts a client's change (n,), times its `share` of all sampled weights, into its row `out` (size,), which is 0."""

    def total(self, summed: Array) -> Array:
        """Returns the sum of weighted changes, (n,), from the sum of rows."""


class Clear:
    """`Sum` of the changes themselves."""

    example: Example | None = None

    def __init__(self, ops: Ops, rounds: Rounds, size: int) -> None:  # noqa: ARG002
        self.size = size
        self._ops = ops

    def put(self, number: int, position: int, change: Array, share: float, out: Array) -> None:  # noqa: ARG002
        self._ops.wire.accumulate(change, share, None, 0.0, out)

    def total(self, summed: Array) -> Array:
        return summed


class Masked:
    """`Sum` of integers modulo 2^32, to each of which every pair of clients adds a mask with opposite signs.

    A row holds each integer in limbs of 11 bits, which float32 adds exactly, in any order. Masks shared with clients that
    dropped out would be left over; they are taken off, as the protocol does with the seeds that survivors reveal.
    """

    def __init__(self, ops: Ops, rounds: Rounds, size: int) -> None:
        self.size = _NUM_LIMBS * size
        self.example: Example | None = None
        self._ops = ops
        self._rounds = rounds
        self._sum = ops.zeros((size,), np.float32)

    def put(self, number: int, position: int, change: Array, share: float, out: Array) -> None:
        plain = fixed_point(self._ops.to_host(change), share)
        left_over = self._masks(number, position, of_arrived=False)
        masked = plain + self._masks(number, position, of_arrived=True) + left_over
        if not any(task.arrives for task in self._rounds.tasks(number)[:position]):
            self.example = number, {"change": plain[:4].tolist(), "masked": masked[:4].tolist()}
        self._ops.upload(limbs(masked - left_over), out)

    def total(self, summed: Array) -> Array:
        whole = joined(self._ops.to_host(summed))
        self._ops.upload((whole.view(np.int32) * UNIT).astype(np.float32), self._sum)
        return self._sum

    def _masks(self, number: int, position: int, of_arrived: bool) -> Words:
        """Returns the sum of the masks that a client shares with others: those that arrive, or those that do not."""
        tasks, size = self._rounds.tasks(number), self.size // _NUM_LIMBS
        total = np.zeros(size, np.uint32)
        for other, task in enumerate(tasks):
            if other != position and task.arrives == of_arrived:
                first, second = sorted((position, other))
                shared = pair_mask(self._rounds.seed, number, first, second, size)
                total += shared if position < other else -shared
        return total


def pair_mask(seed: int, number: int, first: int, second: int, size: int) -> Words:
    """Returns the mask that the clients at two positions of a round share, uint32 (size,)."""
    index = (number * MOST_CLIENTS + first) * MOST_CLIENTS + second
    return words(seed, Purpose.MASK, index, -(-size // 2)).view(np.uint32)[:size]


def fixed_point(change: NDArray[np.float32], share: float) -> Words:
    """Returns change times share in units of `UNIT`, modulo 2^32; the change is held within its range."""
    bounded = np.clip(np.nan_to_num(change.astype(np.float64)), -127, 127)
    return np.rint(bounded * share / UNIT).astype(np.int64).astype(np.uint32)


def limbs(values: Words) -> NDArray[np.float32]:
    """Returns the limbs of integers, the lowest of all first, float32 (3 n,)."""
    mask = np.uint32((1 << _LIMB_BITS) - 1)
    parts = [(values >> np.uint32(_LIMB_BITS * number)) & mask for number in range(_NUM_LIMBS)]
    return np.concatenate(parts).astype(np.float32)


def joined(sums: NDArray[np.float32]) -> Words:
    """Returns the integers modulo 2^32 whose limbs have these sums."""
    parts = sums.astype(np.uint32).reshape(_NUM_LIMBS, -1)
    return sum((part << np.uint32(_LIMB_BITS * number) for number, part in enumerate(parts)), np.zeros_like(parts[0]))
