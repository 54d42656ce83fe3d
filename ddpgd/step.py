"""One synchronized update: micro-batch gradients, their exchange, and what all ranks then decide alike."""

import math
import time
from typing import NamedTuple

import numpy as np

from ddpgd.comm.exchange import Exchange
from ddpgd.data.batches import Batches, Samples
from ddpgd.kernels.ops import Array, Ops
from ddpgd.model import MultilayerPerceptron
from ddpgd.optim import Optimizer
from ddpgd.schedule import Schedule
from ddpgd.tail import TAIL_WORDS, Tail


class StepResult(NamedTuple):
    """What a step did: equal on all ranks but for the times (seconds) and the bytes (sent by this rank)."""

    loss_sum: float
    samples: int
    squared_norm_sum: float
    stop: bool
    lr: float
    grad_norm: float
    updated: bool
    step_s: float
    compute_s: float
    exchange_s: float
    wire_bytes: int


class Step:
    """Computes, exchanges and applies the gradient of a step. `params` (layout.size,) float32 is changed in place."""

    def __init__(
        self,
        ops: Ops,
        model: MultilayerPerceptron,
        samples: Samples,
        batches: Batches,
        exchange: Exchange,
        optimizer: Optimizer,
        schedule: Schedule,
        params: Array,
        clip_norm: float = 0.0,
    ) -> None:
        """`clip_norm`: the largest norm of a mean gradient; 0 leaves it as it is."""
        self.params = params
        self.optimizer = optimizer
        self._ops = ops
        self._model = model
        self._samples = samples
        self._batches = batches
        self._exchange = exchange
        self._schedule = schedule
        self._clip_norm = clip_norm
        self._probe = ops.zeros((model.layout.size,), np.float32), ops.zeros((TAIL_WORDS,), np.float32)

    def run(self, step: int, number: int, stop: bool, observe: bool) -> StepResult:
        """Runs step `step` (from 0). A gradient that is not finite is not applied; else it is update `number` (from 1).

        `stop`: this rank asks all ranks to stop after it. `observe`: micro-batches report their squared norms.
        """
        started = time.perf_counter()

        def leaf(micro_batch: int, grads: Array, tail: Array) -> None:
            self._gradient(step, micro_batch, grads, tail)
            if observe:
                tail[Tail.SQUARED_NORM_SUM] = self._ops.squared_norm(grads)

        num_micro_batches = self._batches.num_micro_batches(step)
        transport = self._exchange.transport
        bytes_before = transport.bytes_sent
        self._exchange.fold(num_micro_batches, leaf)
        folded = time.perf_counter()
        grads, summed_tail = self._exchange.combine(num_micro_batches, stop)
        exchanged = time.perf_counter()
        tail = self._ops.to_host(summed_tail).tolist()
        samples = round(tail[Tail.SAMPLES])
        lr = self._schedule(step)
        grad_norm, updated = self._apply(grads, samples, lr, number, finite=tail[Tail.NON_FINITE] == 0)
        return StepResult(
            loss_sum=tail[Tail.LOSS_SUM],
            samples=samples,
            squared_norm_sum=tail[Tail.SQUARED_NORM_SUM],
            stop=tail[Tail.STOP] > 0,
            lr=lr,
            grad_norm=grad_norm,
            updated=updated,
            step_s=time.perf_counter() - started,
            compute_s=folded - started,
            exchange_s=exchanged - folded,
            wire_bytes=transport.bytes_sent - bytes_before,
        )

    def non_finite(self, step: int) -> str:
        """Computes this rank's micro-batches of `step` once more and names the first gradient that is not finite.

        "micro-batch 3 (training samples 5, 17, ...), first in dense1.weight", or an empty string.
        """
        grads, tail = self._probe
        for micro_batch in self._exchange.micro_batches(self._batches.num_micro_batches(step)):
            self._gradient(step, micro_batch, grads, tail)
            if name := self._model.non_finite_tensor(grads):
                samples = ", ".join(map(str, self._batches.indices(step, micro_batch)[:8]))
                return f"micro-batch {micro_batch} (training samples {samples}, ...), first in {name}"
        return ""

    def _gradient(self, step: int, micro_batch: int, grads: Array, tail: Array) -> None:
        indices = self._ops.from_host(self._batches.indices(step, micro_batch))
        images, labels = self._samples.images, self._samples.labels
        num_rows = self._model.load(images, labels, indices)
        self._model.gradient(self.params, num_rows, grads, tail)
        tail[Tail.NON_FINITE] = not math.isfinite(tail[Tail.LOSS_SUM])

    def _apply(self, grads: Array, samples: int, lr: float, number: int, finite: bool) -> tuple[float, bool]:
        """Divide, decide whether all is finite, clip, update: the mean gradient's norm, and whether it was applied."""
        scale = 1.0 / samples
        norm = math.sqrt(self._ops.squared_norm(grads)) * scale
        finite = finite and math.isfinite(norm)
        if finite:
            if 0.0 < self._clip_norm < norm:
                scale *= self._clip_norm / norm
            self.optimizer.update(self.params, grads, lr, scale, number)
        return norm, finite
