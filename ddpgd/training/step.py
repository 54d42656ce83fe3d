"""Synchronized updates: micro-batch gradients, their exchange, and what all ranks then decide alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from ddpgd.comm.codec import WireLoss
from ddpgd.comm.compressor import NoExchange
from ddpgd.comm.exchange import Exchange
from ddpgd.data.batches import Batches, Samples
from ddpgd.kernels.ops import Array, Ops
from ddpgd.kernels.words import CONTROL_WORDS, HISTORY_WORDS, TAIL_WORDS, Control, History, Policy, Tail
from ddpgd.model.network import MultilayerPerceptron
from ddpgd.optim.rules import Optimizer
from ddpgd.optim.schedules import Schedule
from ddpgd.training.cursor import DataCursor

HISTORY_ROWS = 512
LONGEST_RUN_S = 0.1
"""Steps that run without a look of the host take about so long at most, so that a signal is soon heard."""


class StepResult(NamedTuple):
    """What one or more steps did: equal on all ranks but for the times (seconds) and the bytes (sent by this rank).

    `residual_norm`: of what rank 0 keeps back, in units of the mean gradient, at observed steps. `drift`: how far ranks
    were from their mean before they combined params, over how far that mean had moved.
    `halted`: the gradient of the last of them was not finite. `loss_sums` are those of the updates that were applied;
    `loss_scale` is None where it is fixed; it, `stop`, `lr`, `grad_norm` and `squared_norm_sum` are those of the last step.
    """

    num_steps: int
    samples: int
    loss_sums: list[float]
    halted: bool
    squared_norm_sum: float
    stop: bool
    lr: float
    loss_scale: float | None
    grad_norm: float
    step_s: float
    compute_s: float
    exchange_s: float
    wire_bytes: int
    wire_loss: WireLoss | None
    residual_norm: float | None = None
    drift: float | None = None


class Step:
    """Computes, exchanges and applies the gradients of steps. `params` (layout.size,) is changed in place."""

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
        policy: Policy,
        updates: int = 0,
        loss_scaling: tuple[float, int] = (1.0, 0),
        weights: Array | None = None,
    ) -> None:
        """`updates`: how many were applied before. `loss_scaling`: the loss scale, and for how many steps it held.

        `weights`: what `Ops.round_weights` made of params for another object that updates them too.
        """
        self.params = params
        self.optimizer = optimizer
        self._ops = ops
        self.model = model
        self.samples = samples
        self.batches = batches
        self.exchange = exchange
        self._policy = policy
        self.weights = ops.round_weights(params) if weights is None else weights
        self._data_cursor = DataCursor(ops, batches, schedule)
        self._control = ops.zeros((CONTROL_WORDS,), np.float64)
        self._history = ops.zeros((HISTORY_ROWS, HISTORY_WORDS), np.float64)
        self._decided = 0
        self._probe: tuple[Array, Array] | None = None
        self._parts: dict[tuple[int, bool], _Parts] = {}
        needs_host = exchange.needs_host
        # Ranks that go on without the host would have to agree on how many steps, and on when to stop.
        assert needs_host or exchange.transport.world_size == 1 or isinstance(exchange.compressor, NoExchange)
        self._drive: Callable[[_Parts, int, bool, bool], tuple[float | None, float]]
        self._drive = self._around_the_host if needs_host else self._whole
        self._most = 1 if needs_host or ops.steps_per_replay == 1 else HISTORY_ROWS
        self._last_step_s = LONGEST_RUN_S
        control = np.zeros(CONTROL_WORDS)
        control[Control.UPDATE] = updates
        control[Control.LOSS_SCALE], control[Control.GOOD_STEPS] = loss_scaling
        ops.upload(control, self._control)

    def run(self, step: int, count: int, stop: bool, observe: bool) -> StepResult:
        """Runs one or more steps from `step` (from 0) on, at most `count`. Not finite: not applied, and no step after it.

        `stop`: this rank asks all ranks to stop after it. `observe`: one step, whose micro-batches report their squared
        norms.
        """
        samples = self.batches.samples(step)
        parts = self._parts.get((samples, observe)) or self._prepare(samples, observe)
        count = 1 if stop or observe or self._most == 1 else self._whole_steps(step, count)
        bytes_before, started = self.exchange.bytes_sent, time.perf_counter()
        self._data_cursor.move_to(step, self._decided)
        self.exchange.round = step
        compute_s, exchange_s = self._drive(parts, count, stop, observe)
        first = self._decided % HISTORY_ROWS
        rows = self._ops.to_host(self._history[first : first + count]).tolist()
        self._decided += count
        self._data_cursor.moved(count)
        num_steps, halted = _until_halt(rows)
        last = rows[num_steps - 1]
        if halted:
            self._clear_halt()
        step_s = time.perf_counter() - started
        self._last_step_s = step_s / count
        return StepResult(
            num_steps=num_steps,
            samples=num_steps * samples,
            loss_sums=[row[Tail.LOSS_SUM] for row in rows[:num_steps] if row[History.APPLIED]],
            halted=halted,
            squared_norm_sum=last[Tail.SQUARED_NORM_SUM] / last[History.LOSS_SCALE] ** 2,
            stop=stop or last[Tail.STOP] > 0,
            lr=last[History.LR],
            loss_scale=last[History.LOSS_SCALE] if self._policy.growth_interval else None,
            grad_norm=last[History.GRAD_NORM],
            step_s=step_s,
            compute_s=step_s if compute_s is None else compute_s,
            exchange_s=exchange_s,
            wire_bytes=(self.exchange.bytes_sent - bytes_before) // count,
            wire_loss=self.exchange.wire_loss,
            residual_norm=self._residual_norm() if observe else None,
        )

    @property
    def shared(self) -> dict[str, Array]:
        """What a checkpoint must hold beside params, by name: vectors that are equal on all ranks."""
        compressor = self.exchange.compressor
        state = {f"wire.{name}": vector for name, vector in (compressor.shared if compressor else {}).items()}
        return state | {f"optimizer.{name}": vector for name, vector in self.optimizer.state.items()}

    @property
    def own(self) -> dict[str, Array]:
        """The same: vectors of which each rank has its own."""
        return {f"residual.{name}": vector for name, vector in self.exchange.residuals.items()}

    def loss_scaling(self) -> tuple[float, int]:
        """The loss scale, and for how many steps it has held: what a checkpoint must know."""
        control = self._ops.to_host(self._control)
        return float(control[Control.LOSS_SCALE]), int(control[Control.GOOD_STEPS])

    def non_finite(self, step: int) -> str:
        """Computes this rank's micro-batches of `step` once more and names the first gradient that is not finite.

        "micro-batch 3 (training samples 5, 17, ...), first in dense1.weight", or an empty string.
        """
        self._data_cursor.move_to(step, self._decided)
        if self._probe is None:
            shapes = (1, self.model.layout.size), (1, TAIL_WORDS)
            self._probe = self._ops.zeros(shapes[0], np.float32), self._ops.zeros(shapes[1], np.float32)
        grads, tails = self._probe
        for micro_batch in self.exchange.micro_batches(self.batches.num_micro_batches(step)):
            self._gradient(self.batches.samples(step), range(micro_batch, micro_batch + 1), grads, tails)
            if name := self.model.non_finite_tensor(grads[0]):
                samples = ", ".join(map(str, self.batches.indices(step, micro_batch)[:8]))
                return f"micro-batch {micro_batch} (training samples {samples}, ...), first in {name}"
        return ""

    def _whole_steps(self, step: int, count: int) -> int:
        """How many of `count` steps may run without a look of the host: full ones of one epoch, or a last, short one."""
        full = self.batches.num_full_steps(step)
        room = HISTORY_ROWS - self._decided % HISTORY_ROWS
        in_time = int(LONGEST_RUN_S / self._last_step_s)
        return max(1, min(count, full, room, in_time))

    def _prepare(self, samples: int, observe: bool) -> "_Parts":
        """What a step of so many samples does, captured; where in the data it stands, the cursor says."""
        num_micro_batches = -(-samples // self.batches.micro_batch)
        fold = partial(self._fold, samples, num_micro_batches, observe)

        def whole() -> None:
            fold()
            self.exchange.combine(num_micro_batches)
            self._update()

        def several() -> None:
            for _ in range(self._ops.steps_per_replay):
                whole()

        capture = self._ops.capture
        if self.exchange.needs_host:
            parts = _Parts(num_micro_batches, fold=capture(fold), update=capture(self._update))
        elif observe or samples < self._policy.global_batch or self._most == 1:
            parts = _Parts(num_micro_batches, whole=capture(whole))
        else:
            parts = _Parts(num_micro_batches, whole=capture(whole), several=capture(several))
        self._parts[samples, observe] = parts
        return parts

    def _whole(self, parts: "_Parts", count: int, stop: bool, look: bool) -> tuple[None, float]:  # noqa: ARG002
        """All of `count` steps, without the host: no exchange, and no time of the computation apart."""
        while parts.several is not None and count >= self._ops.steps_per_replay:
            parts.several()
            count -= self._ops.steps_per_replay
        for _ in range(count):
            parts.whole()
        if self._most > 1:
            self._data_cursor.make_next_order()  # made while the device computes
        return None, 0.0

    def _around_the_host(self, parts: "_Parts", count: int, stop: bool, look: bool) -> tuple[float, float]:  # noqa: ARG002
        """One step, whose exchange needs the host: seconds of computation, and of the exchange."""
        started = time.perf_counter()
        parts.fold()
        self._ops.synchronize()
        folded = time.perf_counter()
        self.exchange.combine(parts.num_micro_batches, stop, look)
        exchanged = time.perf_counter()
        parts.update()
        return folded - started, exchanged - folded

    def _fold(self, samples: int, num_micro_batches: int, observe: bool) -> None:
        def leaves(micro_batches: range, grads: Array, tails: Array) -> None:
            self._gradient(samples, micro_batches, grads, tails)
            if observe:
                self._ops.squared_norms(grads, tails[:, Tail.SQUARED_NORM_SUM])

        self.exchange.fold(num_micro_batches, leaves)

    def _gradient(self, samples: int, micro_batches: range, grads: Array, tails: Array) -> None:
        data, model, micro_batch = self.samples, self.model, self.batches.micro_batch
        offset = micro_batches.start * micro_batch
        num_rows = min(micro_batches.stop * micro_batch, samples) - offset
        model.load(data.images, data.labels, self._data_cursor.order, self._data_cursor.cursor, offset, num_rows)
        model.gradient(self.params, self.weights, num_rows, micro_batch, self._control, grads, tails)

    def _update(self) -> None:
        """Divide, decide whether all is finite, clip, update."""
        grads, tail = self.exchange.result
        self._ops.decide(
            grads, tail, self._data_cursor.lrs, self._data_cursor.cursor, self._control, self._history, self._policy
        )
        self.optimizer.update(self.params, grads, self._control, self.weights)

    def _residual_norm(self) -> float | None:
        """In units of the mean gradient of a full step."""
        norm = self.exchange.residual_norm()
        return None if norm is None else norm / self._policy.global_batch

    def _clear_halt(self) -> None:
        control = np.array(self._ops.to_host(self._control))
        control[Control.HALTED] = 0
        self._ops.upload(control, self._control)


def _until_halt(rows: list[list[float]]) -> tuple[int, bool]:
    """How many steps there are up to the first whose gradient was not finite, that one included; and is there one?"""
    for number, row in enumerate(rows, start=1):
        if not row[History.APPLIED] and not row[History.OVERFLOWED] and row[Tail.SAMPLES]:
            return number, True
    return len(rows), False


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class _Parts:
    """The work of one shape of a step: whole, once or several times; or the parts before and after its exchange."""

    num_micro_batches: int
    whole: Callable[[], None] = _nothing
    several: Callable[[], None] | None = None
    fold: Callable[[], None] = _nothing
    update: Callable[[], None] = _nothing
