"""One synchronized update: micro-batch gradients, their exchange, the decision, the update.

`Step.compute_gradients`, the exchange's `combine` and `Step.decide_and_update` are the step, in this order; `Step.run` is
what the training loop calls, and `replay` runs the three captured.
"""

import time
from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np

from ddpgd.comm import whereabouts
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.requests import Requests
from ddpgd.comm.rows import Group, Rows
from ddpgd.comm.whereabouts import ACTIVITY, INPUT
from ddpgd.data.batches import Batches, Samples
from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import HISTORY_WORDS, TAIL_WORDS, History, Policy, Tail
from ddpgd.optim.rules import Optimizer
from ddpgd.optim.schedules import Schedule
from ddpgd.training.counters import Record
from ddpgd.training.cursor import DataCursor
from ddpgd.training.lookahead import Lookahead
from ddpgd.training.passes import Feed, Passes, Weights
from ddpgd.training.protocols import Tap
from ddpgd.training.replay import DeviceReplay, HostReplay, Replay, StepShape
from ddpgd.training.state import TrainState
from ddpgd.training.step_result import StepResult
from ddpgd.training.update_norms import UpdateNorms

HISTORY_ROWS = 512
"""Steps that can run before the host looks."""


class Step:
    """Computes, exchanges and applies the gradients of steps; `state` is changed in place."""

    def __init__(
        self,
        ops: Ops,
        passes: Passes,
        samples: Samples,
        batches: Batches,
        exchange: Exchange,
        optimizer: Optimizer,
        schedule: Schedule,
        state: TrainState,
        policy: Policy,
        goes_on_after_halt: bool = False,
        augmentation: Augmentation | None = None,
        max_norm: float = 0.0,
    ) -> None:
        """`goes_on_after_halt`: a gradient that is not finite does not end the run; see `run`.

        `max_norm`: the largest norm of what comes into a hidden unit, after each update; 0: no limit.
        """
        self.passes = passes
        self.samples = samples
        self.batches = batches
        self.exchange = exchange
        self.state = state
        self._ops = ops
        self._optimizer = optimizer
        self._policy = policy
        self._augmentation = augmentation
        self._max_norm = max_norm
        self._cursor = DataCursor(ops, batches, schedule)
        self._history = ops.zeros((HISTORY_ROWS, HISTORY_WORDS), np.float64)
        self._num_decided = 0
        # Steps that follow a halt before the host sees it would change what the wire keeps back.
        keeps_back = goes_on_after_halt and bool(exchange.residuals)
        runs_ahead = not exchange.needs_host and ops.runs_ahead and not keeps_back
        self._most_steps = HISTORY_ROWS if runs_ahead else 1
        self._lookahead = Lookahead(ops, exchange)
        self._replays: dict[StepShape, Replay] = {}
        self._taps: list[Tap] = []
        self._here = whereabouts.here()

    def run(self, step: int, count: int, stop: bool, observe: bool) -> StepResult:
        """Runs one or more steps from `step` (from 0) on, at most `count`. Not finite: not applied, and no step after it.

        `stop`: this rank asks all ranks to stop after it. `observe`: one step, whose micro-batches report their squared
        norms.
        """
        shape = StepShape(self.batches.samples(step), self.batches.num_micro_batches(step), observe)
        count = 1 if observe or self._most_steps == 1 else self._steps_without_host(step, count, stop)
        if observe:
            self._update_norms.begin()
        started = time.perf_counter()
        self._here[ACTIVITY] = INPUT
        self._cursor.move_to(step, self._num_decided)
        self.exchange.round, waited_s = step, self.passes.wait_s
        if self._most_steps > 1:
            self._lookahead.ask(stop)
        for tap in self._taps:
            tap.begins(step, self.state.params)
        cost = self._replay(shape).run(count, stop)
        rows = self._read_history(count)
        self._cursor.moved(count)
        num_steps, halted = _until_halt(rows)
        last = rows[num_steps - 1]
        if halted:
            self.state.clear_halt(self._ops)
        step_s = time.perf_counter() - started
        if cost.compute_s is None:
            self._lookahead.note(step_s / count, last[Tail.STEP_S])
        grad_scale = 1 / (shape.num_samples * last[History.LOSS_SCALE])
        return StepResult(
            num_steps=num_steps,
            samples=num_steps * shape.num_samples,
            loss_sums=[row[Tail.LOSS_SUM] for row in rows[:num_steps] if row[History.APPLIED]],
            halted=halted,
            squared_norm_sum=last[Tail.SQUARED_NORM_SUM] / last[History.LOSS_SCALE] ** 2,
            stop=stop or last[Tail.STOP] > 0,
            lr=last[History.LR],
            loss_scale=last[History.LOSS_SCALE] if self._policy.growth_interval else None,
            grad_norm=last[History.GRAD_NORM],
            step_s=step_s,
            compute_s=step_s if cost.compute_s is None else cost.compute_s,
            exchange_s=cost.exchange_s,
            wire_bytes=cost.wire_bytes // count,
            wire_loss=self.exchange.wire_loss,
            residual_norm=self._residual_norm() if observe else None,
            between_bytes=cost.between_bytes // count,
            stage_wait_s=self.passes.wait_s - waited_s,
            block_norms=self._update_norms.end(grad_scale) if observe else None,
        )

    def figures(self) -> Record:
        """Returns no figures of its own."""
        return {}

    def time_parts(self) -> None:
        """Lets the host take part in every step from the first on, so that the parts of each are timed."""
        self._most_steps = 1

    def add_tap(self, tap: Tap) -> None:
        """Lets `tap` see every step, which the host then takes part in. In the order of calls."""
        self._taps.append(tap)
        self.time_parts()

    def compute_gradients(self, shape: StepShape) -> None:
        """Computes this rank's micro-batch gradients, and adds them in canonical order."""
        for group in self._gradients(shape.num_samples, self.exchange.groups(shape.num_micro_batches)):
            if shape.observe:
                self._ops.squared_norms(group.rows.grads, group.rows.tails[:, Tail.SQUARED_NORM_SUM])
            self.exchange.fold(group)
        for tap in self._taps:
            tap.computed(self.exchange.pieces(shape.num_micro_batches))

    def sum_gradients(self, shape: StepShape, requests: Requests | None) -> None:
        """Computes this rank's gradients and sums them over all ranks, without the host: buckets beside computing."""
        exchange, count = self.exchange, shape.num_micro_batches
        if len(exchange.buckets(count)) < 2 or shape.observe:
            self.compute_gradients(shape)
            exchange.combine(count, requests=requests)
            return

        def backward(group: Group, bucket: slice) -> None:
            layers = self.passes.network.layers_in(bucket)
            for _ in self._gradients(shape.num_samples, [group], layers):
                pass

        for group in self._gradients(shape.num_samples, exchange.groups(count)[:-1]):
            exchange.fold(group)
        exchange.combine_beside(count, backward, requests)

    def decide_and_update(self) -> None:
        """Divides the sum over all ranks, decides whether it is finite, clips it, and updates this rank's part of params."""
        grads, tail = self.exchange.result
        for tap in self._taps:
            tap.summed(grads)
        ops, at, state, norms = self._ops, self._cursor, self.state, self.exchange.block_norms
        decide, summed = (ops.decide, grads) if norms is None else (ops.decide_by_norms, norms)
        with ops.fused():
            decide(summed, tail, at.rates, at.cursor, state.control, self._history, self._policy)
            self._optimizer.update(*self._own_parts, state.control, self._own_weights)

    def share_params(self) -> None:
        """Hands every rank the params that others have updated; then each limits norms, which takes whole columns."""
        state = self.state
        state.shares.all_gather(state.params)
        if state.weights is not state.params:
            state.shares.all_gather(state.weights)
        for weight, rounded in self._limited:
            self._ops.limit_norms(weight, rounded, state.control, self._max_norm)

    def non_finite(self, step: int) -> str:
        """Computes this rank's micro-batches of `step` once more and names the first gradient that is not finite.

        "micro-batch 3 (training samples 5, 17, ...), first in dense1.weight", or an empty string.
        """
        self._cursor.move_to(step, self._num_decided)
        own = self.exchange.micro_batches(self.batches.num_micro_batches(step))
        groups = [Group(range(number, number + 1), self._spare_row, None, []) for number in own]
        found = ""
        # Ranks that share layers go through all of their micro-batches together.
        for group in self._gradients(self.batches.samples(step), groups):
            if not found and (name := self.passes.network.non_finite_tensor(group.rows.grads[0])):
                number = group.micro_batches.start
                samples = ", ".join(map(str, self.batches.indices(step, number)[:8]))
                found = f"micro-batch {number} (training samples {samples}, ...), first in {name}"
        return found

    def _gradients(self, num_samples: int, groups: list[Group], layers: range | None = None) -> Iterator[Group]:
        """Yields each group of micro-batches with its rows filled: sums over the samples of each micro-batch.

        `layers`: as for `Passes.gradients`.
        """
        state = self.state
        at = self._cursor
        feed = Feed(self.samples, at.order, at.cursor, self.batches.micro_batch, num_samples, self._augmentation)
        return self.passes.gradients(feed, groups, Weights(state.params, state.weights, state.control), layers)

    @cached_property
    def _own_parts(self) -> tuple[Array, Array]:
        """The params that this rank updates, and their gradient: always the same arrays."""
        part = self.state.shares.part
        return part(self.state.params), part(self.exchange.result[0])

    @cached_property
    def _limited(self) -> list[tuple[Array, Array]]:
        """The weight matrices whose columns have a largest norm, and what products read of them."""
        state, tensors = self.state, self.passes.network.layout.tensors if self._max_norm else ()
        hidden = [tensor for tensor in tensors if tensor.is_hidden]
        views = [(tensor.view(state.params), tensor.view(state.weights)) for tensor in hidden]
        return [(weight, weight if state.weights is state.params else rounded) for weight, rounded in views]

    @cached_property
    def _own_weights(self) -> Array:
        state = self.state
        return self._own_parts[0] if state.weights is state.params else state.shares.part(state.weights)

    @cached_property
    def _update_norms(self) -> UpdateNorms:
        return UpdateNorms(self._ops, self.state, self._own_parts[1])

    @cached_property
    def _spare_row(self) -> Rows:
        """A row for `non_finite`: always the same one, because the network keeps views of what it is given."""
        size = self.passes.network.layout.size
        return Rows(self._ops.zeros((1, size + TAIL_WORDS), np.float32), size)

    def _replay(self, shape: StepShape) -> Replay:
        replay = self._replays.get(shape)
        if replay is None:
            replay = self._replays[shape] = self._make_replay(shape)
        return replay

    def _make_replay(self, shape: StepShape) -> Replay:
        """Whole steps without the host, where they can; observed ones that have an exchange are timed part by part."""
        requests, update = self._lookahead.requests, (self.decide_and_update, self.share_params)
        if self._most_steps == 1 or (shape.observe and requests is not None):
            work = partial(self.compute_gradients, shape), *update
            is_tapped = bool(self._taps)
            captures = not (self.passes.needs_host or is_tapped), not is_tapped
            return HostReplay(self._ops, self.exchange, shape, *work, *captures)
        sum_gradients = partial(self.sum_gradients, shape, requests)
        return DeviceReplay(self._ops, self.exchange, sum_gradients, *update, has_peers=requests is not None)

    def _steps_without_host(self, step: int, count: int, stop: bool) -> int:
        """Number of `count` steps that may run without the host: full ones of one epoch, or a last, short one."""
        full = self.batches.num_full_steps(step)
        room = HISTORY_ROWS - self._num_decided % HISTORY_ROWS
        return self._lookahead.num_steps(max(1, min(count, full, room)), stop)

    def _read_history(self, count: int) -> list[list[float]]:
        """The rows of the last `count` steps."""
        first = self._num_decided % HISTORY_ROWS
        self._num_decided += count
        rows: list[list[float]] = self._ops.to_host(self._history[first : first + count]).tolist()
        return rows

    def _residual_norm(self) -> float | None:
        """In units of the mean gradient of a full step."""
        norm = self.exchange.residual_norm()
        return None if norm is None else norm / self._policy.global_batch


def _until_halt(rows: list[list[float]]) -> tuple[int, bool]:
    """The number of steps up to the first whose gradient was not finite, that one included; and whether there is one."""
    for number, row in enumerate(rows, start=1):
        if not row[History.APPLIED] and not row[History.OVERFLOWED] and row[Tail.SAMPLES]:
            return number, True
    return len(rows), False
