"""Exact distributed evaluation: every sample once, summed in canonical order, so that no decision depends on W."""

import math

import numpy as np

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.data.batches import Samples
from ddpgd.kernels.ops import Array, Ops
from ddpgd.model import MultilayerPerceptron
from ddpgd.tail import Tail

EVALUATE_ROWS = 512
"""Samples in one forward pass of an evaluation; fixed, because a product's bits depend on its shape."""


class Evaluate:
    """evaluate(params) -> (loss mean, accuracy) over all of `samples`, equal on all ranks."""

    def __init__(self, ops: Ops, model: MultilayerPerceptron, samples: Samples, transport: Transport) -> None:
        """`model` must hold EVALUATE_ROWS rows."""
        self._ops = ops
        self._model = model
        self._samples = samples
        self._exchange = Exchange(transport, ops, size=0)

    def __call__(self, params: Array) -> tuple[float, float]:
        num_samples = len(self._samples.labels)

        def leaf(micro_batch: int, _grads: Array, tail: Array) -> None:
            first = micro_batch * EVALUATE_ROWS
            indices = np.arange(first, min(first + EVALUATE_ROWS, num_samples))
            images, labels = self._samples.images, self._samples.labels
            num_rows = self._model.load(images, labels, self._ops.from_host(indices))
            self._model.loss(params, num_rows, tail)

        _, summed = self._exchange.sum(math.ceil(num_samples / EVALUATE_ROWS), leaf)
        tail = self._ops.to_host(summed)
        samples = float(tail[Tail.SAMPLES])
        return float(tail[Tail.LOSS_SUM]) / samples, float(tail[Tail.CORRECT]) / samples
