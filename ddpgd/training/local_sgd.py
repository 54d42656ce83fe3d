"""Local updates: each rank changes its own params for some steps; then all combine what they changed.

With plain SGD outside: Stich, "Local SGD converges fast and communicates little", 2019; every step together at first: Lin,
Stich, Patel, Jaggi, "Don't use large mini-batches, use local SGD", 2020. With Nesterov momentum outside: Douillard et al.,
"DiLoCo: distributed low-communication training of language models", 2023.
"""

import math
import time

import numpy as np

from ddpgd.comm.exchange import Exchange
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import CONTROL_WORDS, Control, Tail
from ddpgd.optim.rules import Optimizer
from ddpgd.training.counters import Record
from ddpgd.training.step import Step
from ddpgd.training.step_result import StepResult


class LocalSgd:
    """A `Sync` of two steps on the same params: `synced_step` before `local_after`, `local_step` after.

    A round is `local_steps` steps, the last one perhaps fewer; a run of it ends where ranks have combined, and are equal.
    Their mean weighs all ranks alike. The optimizer's vectors stay each rank's own.
    """

    def __init__(
        self,
        ops: Ops,
        synced_step: Step,
        local_step: Step,
        exchange: Exchange,
        outer: Optimizer,
        outer_lr: float,
        local_steps: int,
        local_after: int,
        total_steps: int,
    ) -> None:
        """`exchange`: of changes of params, whose sum `outer` takes for the gradient of all ranks."""
        self.state = synced_step.state
        self.passes = synced_step.passes
        self.batches = synced_step.batches
        self.exchange = exchange
        self._ops = ops
        self._synced_step = synced_step
        self._local_step = local_step
        self._outer = outer
        self._local_steps = local_steps
        self._local_after = local_after
        self._total_steps = total_steps
        self._halted_at: int | None = None
        self._anchor = ops.zeros(self.state.params.shape, np.float32)
        self._square = ops.zeros((1,), np.float32)
        self._control = ops.zeros((CONTROL_WORDS,), np.float64)
        control = np.zeros(CONTROL_WORDS)
        control[[Control.LR, Control.SCALE, Control.APPLY]] = outer_lr, 1 / exchange.transport.world_size, 1
        ops.upload(control, self._control)

    def non_finite(self, step: int) -> str:
        """As `Step.non_finite`; in local steps, of the one at which this rank stood still."""
        if step < self._local_after:
            return self._synced_step.non_finite(step)
        if self._halted_at is None:
            return ""
        return f"step {self._halted_at + 1}, {self._local_step.non_finite(self._halted_at)}"

    def run(self, step: int, count: int, stop: bool, observe: bool) -> StepResult:
        """As `Step.run` before `local_after`; then a round, whatever `count` is."""
        if step < self._local_after:
            return self._synced_step.run(step, min(count, self._local_after - step), stop, observe)
        bytes_before, between_before = self.exchange.bytes_sent, self.exchange.form.bytes_between
        started = time.perf_counter()
        parts, num_steps = self._update_alone(step), self._end(step) - step
        updated = time.perf_counter()
        if missed := num_steps - sum(len(part.loss_sums) for part in parts):
            self.state.count_missed_updates(self._ops, missed)
        loss_sum = math.fsum(loss_sum for part in parts for loss_sum in part.loss_sums)
        grads, tail = self._combine(step, loss_sum, parts[-1].halted, stop, observe)
        words = [float(word) for word in self._ops.to_host(tail)]
        drift = self._drift(grads, words[Tail.SQUARED_NORM_SUM])
        self._outer.update(self._anchor, grads, self._control, self.state.weights)
        self._copy(self._anchor, self.state.params)
        self._ops.synchronize()
        ended = time.perf_counter()
        halted = words[Tail.NON_FINITE] > 0
        return parts[-1]._replace(
            num_steps=num_steps,
            samples=sum(self.batches.samples(number) for number in range(step, step + num_steps)),
            loss_sums=[] if halted else [words[Tail.LOSS_SUM]] + [0.0] * (num_steps - 1),
            halted=halted,
            squared_norm_sum=0.0,
            stop=stop or words[Tail.STOP] > 0,
            step_s=ended - started,
            compute_s=updated - started,
            exchange_s=ended - updated,
            wire_bytes=(self.exchange.bytes_sent - bytes_before) // num_steps,
            wire_loss=self.exchange.wire_loss,
            residual_norm=self.exchange.residual_norm() if observe else None,
            drift=drift,
            between_bytes=(self.exchange.form.bytes_between - between_before) // num_steps,
        )

    def figures(self) -> Record:
        """Returns no figures of its own."""
        return {}

    def _end(self, step: int) -> int:
        """The step at which the round of `step` ends."""
        rounds = (step - self._local_after) // self._local_steps + 1
        return min(self._total_steps, self._local_after + rounds * self._local_steps)

    def _update_alone(self, step: int) -> list[StepResult]:
        """This rank's local steps; none after a gradient that is not finite."""
        self._copy(self.state.params, self._anchor)
        parts: list[StepResult] = []
        at, end = step, self._end(step)
        while at < end and not (parts and parts[-1].halted):
            parts.append(self._local_step.run(at, end - at, False, False))
            at += parts[-1].num_steps
        self._halted_at = at - 1 if parts[-1].halted else None
        return parts

    def _combine(
        self, step: int, loss_sum: float, halted: bool, stop: bool, measure_error: bool
    ) -> tuple[Array, Array]:
        """The sum over ranks of what they changed, with the sign of a gradient."""
        world_size = self.exchange.transport.world_size

        self.exchange.round = step
        for group in self.exchange.groups(world_size):
            grads, tails = group.rows.grads, group.rows.tails
            self._copy(self._anchor, grads[0])
            self._ops.wire.accumulate(self.state.params, -1.0, None, 0.0, grads[0])
            tails.fill(0)
            self._ops.squared_norms(grads, tails[:, Tail.SQUARED_NORM_SUM])
            tails[0][Tail.LOSS_SUM] = loss_sum
            tails[0][Tail.NON_FINITE] = halted
            self.exchange.fold(group)
        return self.exchange.combine(world_size, stop, measure_error)

    def _drift(self, grads: Array, square_sum: float) -> float | None:
        """Distance of the ranks from their mean, root mean square, over the distance that the mean moved."""
        world_size = self.exchange.transport.world_size
        self._ops.squared_norms(grads.reshape(1, -1), self._square)
        mean_square = float(self._ops.to_host(self._square)[0]) / world_size**2
        if not 0 < mean_square < math.inf:
            return None
        return math.sqrt(max(0.0, square_sum / world_size / mean_square - 1))

    def _copy(self, source: Array, target: Array) -> None:
        target.fill(0)
        self._ops.wire.accumulate(source, 1.0, None, 0.0, target)
