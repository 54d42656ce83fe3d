"""The loop of a run: steps, evaluations, records, checkpoints, and its end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.data.batches import Batches
from ddpgd.errors import Interrupted, NonFiniteError
from ddpgd.model.network import MultilayerPerceptron
from ddpgd.training.counters import Counters, Record
from ddpgd.training.evaluate import Evaluate
from ddpgd.training.state import TrainState
from ddpgd.training.step import StepResult
from ddpgd.training.stopping import StopRequest
from ddpgd.training.timing import StepCosts, median_us, shares


class Observer(Protocol):
    """Sees what a run tells."""

    def step(self, counters: Counters) -> None:
        """After one or more steps; must be cheap."""

    def record(self, record: Record) -> None:
        """After every logged step and evaluation."""

    def say(self, line: str) -> None:
        """Something that happened."""


class Sync(Protocol):
    """The choice of what ranks combine, and when: `Step` gradients, every step; `LocalSgd` params, after some steps."""

    state: TrainState
    model: MultilayerPerceptron
    batches: Batches
    exchange: Exchange

    def run(self, step: int, count: int, stop: bool, observe: bool) -> StepResult:
        """One or more steps, to a point where ranks are equal: at most `count`, or as many as that takes."""

    def non_finite(self, step: int) -> str:
        """Where this rank first finds a gradient of `step` that is not finite; empty: nowhere."""


@dataclass(frozen=True)
class Intervals:
    """How long a run is, and how often it does what, in steps; `until_accuracy` ends it before."""

    total_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int | None
    until_accuracy: float | None = None


class Trainer:
    """Runs steps from where its counters stand. `save()` writes a checkpoint; every rank calls it."""

    def __init__(
        self,
        step: Sync,
        evaluate: Evaluate,
        batches: Batches,
        transport: Transport,
        pace: Intervals,
        stop: StopRequest,
        save: Callable[[], None],
        observer: Observer,
        skip_non_finite: bool = False,
    ) -> None:
        self._step = step
        self._evaluate = evaluate
        self._batches = batches
        self._transport = transport
        self._pace = pace
        self._counters = step.state.counters
        self._stop = stop
        self._save = save
        self._observer = observer
        self._skip_non_finite = skip_non_finite
        self._costs = StepCosts()
        self._saved_at = -1

    def run(self) -> Record:
        """Trains to the end; returns the figures of the run. Interrupted, NonFiniteError: it ended early, on all ranks."""
        try:
            self._loop()
        except Exception as error:
            error.add_note(f"ddpgd: on rank {self._transport.rank}, after {self._counters.step} steps")
            raise
        return self._figures()

    def _loop(self) -> None:
        counters, pace = self._counters, self._pace
        while counters.step < pace.total_steps and not self._target_reached():
            before = counters.step
            count, observe = self._steps_to_next_event()
            result = self._step.run(counters.step, count, bool(self._stop), observe)
            if result.halted:
                self._not_finite(counters.step + result.num_steps - 1)
            self._count(result, observe)
            last = counters.step == pace.total_steps
            evaluated = last or _crossed_multiple(before, counters.step, pace.evaluate_every)
            if evaluated:
                self._test()
            if evaluated or observe or _crossed_multiple(before, counters.step, pace.log_every):
                self._log(result, evaluated)
            self._observer.step(counters)
            if pace.checkpoint_every and _crossed_multiple(before, counters.step, pace.checkpoint_every):
                self._checkpoint()
            if result.stop and not last and not self._target_reached():
                self._interrupt()
        if counters.tested_at != counters.step:
            self._test()
        self._checkpoint()

    def _test(self) -> None:
        loss_mean, self._counters.test_accuracy = self._evaluate(self._step.state.params, self._step.state.weights)
        self._counters.test_loss_mean = _finite(loss_mean)
        self._counters.tested_at = self._counters.step

    def _steps_to_next_event(self) -> tuple[int, bool]:
        """How many steps there are until the host has something to do; and is the next one to be logged?"""
        step, pace = self._counters.step, self._pace
        events = [pace.total_steps - 1, _next(step, pace.log_every) - 1, _next(step, pace.evaluate_every)]
        if pace.checkpoint_every:
            events.append(_next(step, pace.checkpoint_every))
        count = min(events) - step
        logged = step + 1 == pace.total_steps or (step + 1) % pace.log_every == 0
        return max(1, count), logged

    def _target_reached(self) -> bool:
        wanted, counters = self._pace.until_accuracy, self._counters
        tested = counters.test_accuracy if counters.tested_at == counters.step else None
        return wanted is not None and tested is not None and tested >= wanted

    def _count(self, result: StepResult, observe: bool) -> None:
        counters = self._counters
        last_step = counters.step + result.num_steps - 1
        if self._batches.epoch(last_step) > self._batches.epoch(counters.step - 1):
            counters.epoch_loss_sum, counters.epoch_samples = 0.0, 0
        if observe and result.squared_norm_sum:
            num_micro_batches = self._batches.num_micro_batches(counters.step)
            counters.see_noise(result.squared_norm_sum, num_micro_batches, result.grad_norm, result.samples)
        counters.step += result.num_steps
        counters.updates += len(result.loss_sums)
        counters.samples += result.samples
        counters.train_s += result.step_s
        applied_samples = result.samples * len(result.loss_sums) // result.num_steps
        counters.epoch_samples += applied_samples
        counters.log_samples += applied_samples
        for loss_sum in result.loss_sums:
            counters.epoch_loss_sum += loss_sum
            counters.log_loss_sum += loss_sum
        self._costs.add(result)

    def _log(self, result: StepResult, evaluated: bool) -> None:
        counters = self._counters
        record: Record = {
            "step": counters.step,
            "epoch": self._batches.epoch(counters.step - 1) + 1,
            "samples": counters.samples,
            "time": time.time(),
            "train_s": counters.train_s,
            "train_loss_mean": counters.log_loss_sum / counters.log_samples if counters.log_samples else None,
            "lr": result.lr,
            "grad_norm": _finite(result.grad_norm),
            "noise_scale": counters.noise_scale,
            "samples_per_s": self._costs.samples_per_s_since_last(),
            "wire_bytes": result.wire_bytes,
        }
        counters.log_loss_sum, counters.log_samples = 0.0, 0
        if result.wire_loss:
            record |= {f"wire_{name}": value for name, value in result.wire_loss._asdict().items()}
        if result.wire_bytes:
            record["wire_compression"] = self._step.exchange.ring_bytes / result.wire_bytes
        for name in ("residual_norm", "drift"):
            if getattr(result, name) is not None:
                record[name] = getattr(result, name)
        if result.loss_scale is not None:
            record["loss_scale"] = result.loss_scale
        if evaluated:
            record |= {"test_loss_mean": counters.test_loss_mean, "test_accuracy": counters.test_accuracy}
        self._observer.record(record)

    def _checkpoint(self) -> None:
        if self._saved_at != self._counters.step:
            self._save()
            self._saved_at = self._counters.step

    def _interrupt(self) -> None:
        self._checkpoint()
        reasons = filter(None, self._transport.all_gather_objects(self._stop.reason))
        reason = next(reasons, "a rank asked for it")
        raise Interrupted(
            f"stopped after step {self._counters.step} of {self._pace.total_steps}: {reason}; "
            "the checkpoint is written, go on with --resume"
        )

    def _not_finite(self, step: int) -> None:
        found = self._transport.all_gather_objects(self._step.non_finite(step))
        places = [f"rank {rank}, {place}" for rank, place in enumerate(found) if place]
        place = places[0] if places else "the sum over all ranks, though each micro-batch is finite"
        line = f"step {step + 1}: the gradient is not finite in {place}"
        if not self._skip_non_finite:
            raise NonFiniteError(f"{line}; lower --lr, set --clip-norm, or type --non-finite skip")
        self._observer.say(f"{line}; the update is skipped on all ranks")

    def _figures(self) -> Record:
        counters, own = self._counters, self._costs
        everybody = self._transport.all_gather_objects((own.compute_s, own.wire_bytes, own.recent()))
        compute_s, sent, recent = zip(*everybody, strict=True)
        wire_bytes = round(max(sent) / max(1, len(own.step_us)))
        one_rank_share = (sum(compute_s) + own.update_s) / own.step_s if own.step_s else 1.0
        return {
            "steps": counters.step,
            "epochs": counters.step / self._batches.steps_per_epoch,
            "samples": counters.samples,
            "skipped_updates": counters.step - counters.updates,
            "train_loss_mean": counters.train_loss_mean if counters.epoch_samples else None,
            "test_loss_mean": counters.test_loss_mean,
            "test_accuracy": counters.test_accuracy,
            "train_s": counters.train_s,
            "samples_per_s": own.samples / own.step_s if own.step_s else None,
            "step_us_median": median_us(own.step_us),
            "exchange_us_median": median_us(own.exchange_us),
            "step_shares": shares(recent),
            "wire_bytes_per_step": wire_bytes,
            "wire_compression": self._step.exchange.ring_bytes / wire_bytes if wire_bytes else None,
            "one_rank_s_estimate": one_rank_share * counters.train_s,
        }


def _next(step: int, every: int) -> int:
    """The first multiple of `every` after `step`."""
    return (step // every + 1) * every


def _crossed_multiple(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies after `before`, and not after `now`."""
    return now // every > before // every


def _finite(value: float) -> float | None:
    """`value`; None where it is not finite, because JSON knows no such number."""
    return value if math.isfinite(value) else None
