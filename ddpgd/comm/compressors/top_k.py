"""Sparse wires: each rank sends its largest elements, and keeps the others until they are large enough."""

import math
from collections.abc import Callable

import numpy as np

from ddpgd.comm.compressor import Array, Setup
from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import TAIL_WORDS


class TopK:
    """`Compressor` that sends lists of indices and values: Lin, Han, Mao, Wang, Dally, "Deep gradient compression", 2018.

    With momentum it is the paper's momentum correction; the optimizer has no momentum then.
    """

    name = "topk"
    needs_host = True

    def __init__(
        self,
        transport: Transport,
        ops: Ops,
        size: int,
        density: Callable[[int], float],
        batch_fraction: Callable[[int], float],
        momentum: float,
        masking: bool,
        clip_norm: float,
    ) -> None:
        """Creates the vectors as zeros.

        Args:
            transport: The ranks.
            ops: The backend where gradients are.
            size: Elements of the gradient: whole blocks.
            density: Returns the fraction of the elements that a rank sends in a round.
            batch_fraction: As in `Setup`.
            momentum: The factor of the momentum; 0: plain error feedback.
            masking: True if an element that is sent loses its momentum.
            clip_norm: As in `Setup`.
        """
        self.residuals = {"kept": ops.zeros((size,), np.float32)}
        if momentum:
            self.residuals["velocity"] = ops.zeros((size,), np.float32)
        self.replicated: dict[str, Array] = {}
        self._transport = transport
        self._ops = ops
        self._size = size
        self._density = density
        self._batch_fraction = batch_fraction
        self._momentum = momentum
        self._masking = masking
        self._clip_norm = clip_norm
        self._square = ops.zeros((1,), np.float32)
        self._lists: dict[int, list[_List]] = {}

    @property
    def bytes_sent(self) -> int:
        return self._transport.bytes_sent

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        wire, batch_fraction = self._ops.wire, self._batch_fraction(round)
        residual, velocity = self.residuals["kept"], self.residuals.get("velocity")
        wire.accumulate(
            grads, self._clipping(grads, batch_fraction) / batch_fraction, velocity, self._momentum, residual
        )
        lists = self._of_ranks(num_sent(self._size, self._density(round)))
        own = lists[self._transport.rank]
        wire.select(residual, velocity if self._masking else None, own.indices, own.values)
        own.tail[...] = tail
        self._transport.all_gather([[of_rank.wire] for of_rank in lists])
        grads.fill(0)
        tail.fill(0)
        for of_rank in lists:
            wire.scatter_add(of_rank.indices, of_rank.values, batch_fraction, grads)
            self._ops.add(tail, of_rank.tail, tail)

    def _clipping(self, grads: Array, batch_fraction: float) -> float:
        """Returns the factor that clips this rank's gradient; NaN and infinity stay, and are sent first of all."""
        if not self._clip_norm:
            return 1.0
        self._ops.squared_norms(grads.reshape(1, -1), self._square)
        norm = math.sqrt(self._ops.to_host(self._square)[0]) / batch_fraction
        return self._clip_norm / norm if norm > self._clip_norm else 1.0

    def _of_ranks(self, count: int) -> "list[_List]":
        if count not in self._lists:
            self._lists[count] = [_List(self._ops, count) for _ in range(self._transport.world_size)]
        return self._lists[count]


class _List:
    """One rank's message: indices, values, tail."""

    def __init__(self, ops: Ops, count: int) -> None:
        self.wire = ops.zeros((2 * count + TAIL_WORDS,), np.float32)
        self.indices = self.wire[:count].view(np.uint32)
        self.values = self.wire[count : 2 * count]
        self.tail = self.wire[2 * count :]


def make(setup: Setup) -> TopK:
    """Makes the compressor of `--wire topk`, whose density falls from 1 to --topk-density by one factor an epoch."""
    options = setup.options

    def density(step: int) -> float:
        warm = min(1.0, (setup.epoch(step) + 1) / (options["topk_warmup"] + 1))
        return float(options["topk_density"] ** warm)

    return TopK(
        setup.transport.duplicate(),
        setup.ops,
        setup.size,
        density,
        setup.batch_fraction,
        setup.momentum,
        options["topk_masking"],
        setup.clip_norm,
    )


def num_sent(size: int, density: float) -> int:
    """Returns the number of elements, of `size`, that a rank sends."""
    return max(1, math.ceil(density * size))


def num_bytes(size: int, density: float) -> int:
    """Returns the bytes of a rank's message: indices, values, tail."""
    return 8 * num_sent(size, density) + 4 * TAIL_WORDS
