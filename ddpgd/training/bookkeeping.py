"""Figures of a run: what steps add to its counters, a record of the last steps, and the summary of all."""

import statistics
import time

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.data.batches import Batches
from ddpgd.training.counters import Record, finite_or_none
from ddpgd.training.state import TrainState
from ddpgd.training.step_result import StepResult
from ddpgd.training.timing import StepCosts, late_rank, median_us, shares, slow_rank


class Bookkeeping:
    """Counts steps in `counters`, and what they cost on this rank."""

    def __init__(self, state: TrainState, batches: Batches, exchange: Exchange) -> None:
        self._counters = state.counters
        self._state = state
        self._batches = batches
        self._exchange = exchange
        self._costs = StepCosts()

    def count(self, result: StepResult, observe: bool) -> None:
        """Adds the figures of one or more steps. `observe`: micro-batches reported their squared norms.

        Steps that begin in one epoch and end in the next, as local ones may, count in the next.
        """
        counters, epoch = self._counters, self._batches.epoch
        last_step = counters.step + result.num_steps - 1
        if epoch(last_step) > epoch(counters.step - 1):
            if epoch(counters.step) == epoch(counters.step - 1):
                counters.end_epoch()
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
        if epoch(counters.step) > epoch(last_step):
            counters.end_epoch()
        self._costs.add(result)

    def record(self, result: StepResult, evaluated: bool) -> Record:
        """The record of the last step; the sums since the record before it begin anew."""
        counters = self._counters
        record: Record = {
            "step": counters.step,
            "epoch": self._batches.epoch(counters.step - 1) + 1,
            "samples": counters.samples,
            "time": time.time(),
            "train_s": counters.train_s,
            "train_loss_mean": counters.log_loss_sum / counters.log_samples if counters.log_samples else None,
            "epoch_train_loss_mean": counters.train_loss_mean if counters.epoch_samples else None,
            "step_samples": result.samples // result.num_steps,
            "lr": result.lr,
            "grad_norm": finite_or_none(result.grad_norm),
            "noise_scale": counters.noise_scale,
            "samples_per_s": self._costs.samples_per_s_since_last(),
            "wire_bytes": result.wire_bytes,
            "skipped_updates": counters.step - counters.updates,
        }
        counters.log_loss_sum, counters.log_samples = 0.0, 0
        if result.wire_loss:
            record |= {f"wire_{name}": value for name, value in result.wire_loss._asdict().items()}
        if result.wire_bytes:
            record["wire_compression"] = self._exchange.ring_bytes / result.wire_bytes
        for name in ("residual_norm", "drift"):
            if getattr(result, name) is not None:
                record[name] = getattr(result, name)
        if result.loss_scale is not None:
            record["loss_scale"] = result.loss_scale
        if evaluated:
            kind = "test" if counters.validated_at is None else "validation"
            record |= {f"{kind}_{name}": getattr(counters, f"{kind}_{name}") for name in ("loss_mean", "accuracy")}
        return record

    def slow_rank(self, transport: Transport) -> tuple[int, float] | None:
        """Finds a rank that is much slower than the others; every rank calls it."""
        return slow_rank(transport.all_gather_objects(list(self._costs.busy_s)))

    def figures(self, transport: Transport) -> Record:
        """The figures of the whole run for its summary; every rank calls it."""
        counters, own = self._counters, self._costs
        held = sum(vector.nbytes for vector in self._state.optimizer.values())
        costs = own.compute_s, own.update_s, (own.wire_bytes, own.between_bytes), held
        everybody = transport.all_gather_objects((*costs, own.recent(), own.run_share()))
        compute_s, update_s, sent, optimizer_bytes, recent, run_shares = zip(*everybody, strict=True)
        wire_bytes, between_bytes = (round(max(kind) / max(1, own.num_steps)) for kind in zip(*sent, strict=True))
        update_of_one_s = statistics.fmean(update_s) * self._state.shares.num_parts
        one_rank_share = (sum(compute_s) + update_of_one_s) / own.timed_s if own.timed_s else 1.0
        return {
            "steps": counters.step,
            "epochs": counters.step / self._batches.steps_per_epoch,
            "samples": counters.samples,
            "skipped_updates": counters.step - counters.updates,
            "train_loss_mean": counters.train_loss_mean if counters.epoch_samples else None,
            "test_loss_mean": counters.test_loss_mean,
            "test_accuracy": counters.test_accuracy,
            "validation_loss_mean": counters.best_loss_mean,
            "validation_accuracy": counters.best_accuracy,
            "best_step": None if counters.validated_at is None else counters.tested_at,
            "length_changed_at": counters.length_changed_at,
            "train_s": counters.train_s,
            "train_s_since_start": own.step_s,
            "samples_per_s": own.samples / own.step_s if own.step_s else None,
            "step_us_median": median_us(own.step_us),
            "exchange_us_median": median_us(own.exchange_us),
            "step_shares": shares(recent),
            "late_rank": late_rank(recent, run_shares),
            "optimizer_bytes": max(optimizer_bytes),
            "wire_bytes_per_step": wire_bytes,
            "between_bytes_per_step": between_bytes,
            "exchange": self._exchange.form.name,
            "wire_compression": self._exchange.ring_bytes / wire_bytes if wire_bytes else None,
            "noise_scale": counters.noise_scale,
            "one_rank_s_estimate": one_rank_share * counters.train_s,
        }
