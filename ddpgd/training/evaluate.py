"""Exact distributed evaluation: every sample once, summed in canonical order, so that no decision depends on W."""

import math

import numpy as np

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.data.batches import Samples
from ddpgd.kernels.ops import Array, Ops
from ddpgd.kernels.words import CONTROL_WORDS, CURSOR_WORDS, Control, Tail
from ddpgd.model.network import Network

EVALUATE_ROWS = 512
"""Samples in a micro-batch of an evaluation; fixed, because a product's bits depend on its shape."""


class Evaluate:
    """evaluate(params) -> (loss mean, accuracy) over all of `samples`, equal on all ranks."""

    def __init__(self, ops: Ops, model: Network, samples: Samples, transport: Transport, join: int = 1) -> None:
        """`model` must hold `join` * EVALUATE_ROWS rows."""
        num_samples = len(samples.labels)
        self._ops = ops
        self._model = model
        self._samples = samples
        self._num_micro_batches = math.ceil(num_samples / EVALUATE_ROWS)
        self._order = ops.from_host(np.arange(num_samples))
        self._cursor = ops.zeros((CURSOR_WORDS,), np.int64)
        control = np.zeros(CONTROL_WORDS)
        control[Control.LOSS_SCALE] = 1
        self._control = ops.from_host(control)
        self._exchange = Exchange(transport, ops, size=0, join=join)

    def __call__(self, params: Array, weights: Array) -> tuple[float, float]:
        images, labels = self._samples.images, self._samples.labels
        for group in self._exchange.groups(self._num_micro_batches):
            offset = group.micro_batches.start * EVALUATE_ROWS
            num_rows = min(group.micro_batches.stop * EVALUATE_ROWS, len(labels)) - offset
            self._model.load(images, labels, self._order, self._cursor, offset, num_rows)
            self._model.loss(params, weights, num_rows, EVALUATE_ROWS, self._control, group.rows.tails)
            self._exchange.fold(group)
        _, summed = self._exchange.combine(self._num_micro_batches)
        tail = self._ops.to_host(summed)
        samples = float(tail[Tail.SAMPLES])
        return float(tail[Tail.LOSS_SUM]) / samples, float(tail[Tail.CORRECT]) / samples
