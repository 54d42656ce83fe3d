"""Exact distributed evaluation: every sample once, summed in canonical order, so that no decision depends on W."""

import math

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Alone, Transport
from ddpgd.data.batches import Samples
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import CONTROL_WORDS, CURSOR_WORDS, Control, Tail
from ddpgd.training.passes import Feed, Passes, Weights
from ddpgd.training.units import UnitProbe

EVALUATE_ROWS = 512
"""Samples in a micro-batch of an evaluation; fixed, because a product's bits depend on its shape."""


class Evaluate:
    """evaluate(params) -> (loss mean, accuracy) over all of `samples`, equal on all ranks."""

    def __init__(
        self,
        ops: Ops,
        passes: Passes,
        samples: Samples,
        transport: Transport,
        join: int = 1,
        stages: Transport | None = None,
        order: NDArray[np.int64] | None = None,
        probe: UnitProbe | None = None,
    ) -> None:
        """
        Args:
            ops: Where the rank computes.
            passes: Of a network that holds `join` * EVALUATE_ROWS rows.
            samples: All of them.
            transport: The ranks that compute other samples, with the same layers.
            join: At most so many micro-batches are computed side by side.
            stages: The ranks of a pipeline, of which the last has the loss.
            order: The numbers of the samples that count, on the host; None: all.
            probe: Counts dead and saturated units.
        """
        order = np.arange(len(samples.labels)) if order is None else order
        self._ops = ops
        self._passes = passes
        self._samples = samples
        self._stages = stages or Alone()
        self._probe = probe
        self._num_micro_batches = math.ceil(len(order) / EVALUATE_ROWS)
        self._order = ops.from_host(order)
        self._cursor = ops.zeros((CURSOR_WORDS,), np.int64)
        control = np.zeros(CONTROL_WORDS)
        control[Control.LOSS_SCALE] = 1
        self._control = ops.from_host(control)
        self._exchange = Exchange(transport, ops, size=0, join=join)

    def __call__(self, params: Array, weights: Array) -> tuple[float, float]:
        feed = Feed(self._samples, self._order, self._cursor, EVALUATE_ROWS, len(self._order))
        groups = self._exchange.groups(self._num_micro_batches)
        for group in self._passes.losses(feed, groups, Weights(params, weights, self._control)):
            self._exchange.fold(group)
            if self._probe:
                self._probe.see(group, feed.rows(group.micro_batches)[1], EVALUATE_ROWS)
        _, summed = self._exchange.combine(self._num_micro_batches)
        tail = self._stages.all_gather_objects(self._ops.to_host(summed).tolist())[-1]
        return tail[Tail.LOSS_SUM] / tail[Tail.SAMPLES], tail[Tail.CORRECT] / tail[Tail.SAMPLES]
