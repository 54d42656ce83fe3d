"""Costs of the steps of a process: sums, medians, shares."""

import statistics
import time
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddpgd.training.step_result import StepResult

RECENT = 1000
"""Steps over which shares are computed, at most."""

KEPT = 100_000
"""Steps over which medians are computed, at least, where there are so many: memory must not grow with a run."""

LATE_SHARE = 0.2
"""A rank that the others wait for is named from this share of the time on."""


SLOW_STEPS = 20
"""A rank is slow that was slow in so many steps, one after the other."""
_SLOW = 2.0
"""A rank is slow that takes more than so many times as long as the median of the others."""


class StepCosts:
    """Sums over all steps of this process on this rank, in seconds; times of the last ones, in microseconds a step.

    Compute, exchange and update are those of timed steps alone: steps whose exchange the host does not see are not timed.
    """

    def __init__(self) -> None:
        self.samples = self.num_steps = 0
        self.step_s = self.timed_s = self.compute_s = self.update_s = 0.0
        self.step_us = array("d")
        self.timed_us = array("d")
        self.compute_us = array("d")
        self.exchange_us = array("d")
        self.stage_wait_us = array("d")
        self.wire_bytes = self.between_bytes = 0
        self._last_samples, self._last_s = 0, 0.0
        self.busy_s: deque[float] = deque(maxlen=SLOW_STEPS)
        """Seconds of the last steps, and of what came before them, in which this rank did not wait in an exchange."""
        self._last_end = time.perf_counter()
        self._began = time.perf_counter(), time.thread_time()

    def add(self, result: StepResult) -> None:
        self.samples += result.samples
        self.step_s += result.step_s
        self.num_steps += result.num_steps
        self.wire_bytes += result.num_steps * result.wire_bytes
        self.between_bytes += result.num_steps * result.between_bytes
        _keep(self.step_us, result.step_s, result.num_steps)
        began, self._last_end = self._last_end, time.perf_counter()
        if result.exchange_s is None:
            return
        self.busy_s.append((self._last_end - began - result.exchange_s) / result.num_steps)
        self.timed_s += result.step_s
        self.compute_s += result.compute_s
        self.update_s += result.step_s - result.compute_s - result.exchange_s
        _keep(self.timed_us, result.step_s, result.num_steps)
        _keep(self.compute_us, result.compute_s, result.num_steps)
        _keep(self.exchange_us, result.exchange_s, result.num_steps)
        _keep(self.stage_wait_us, result.stage_wait_s, result.num_steps)

    def samples_per_s_since_last(self) -> float:
        samples, seconds = self.samples - self._last_samples, self.step_s - self._last_s
        self._last_samples, self._last_s = self.samples, self.step_s
        return samples / seconds

    def run_share(self) -> float:
        """The share of the time, since this object was made, in which this thread had a core."""
        elapsed_s, ran_s = time.perf_counter() - self._began[0], time.thread_time() - self._began[1]
        return min(1.0, ran_s / elapsed_s) if elapsed_s else 1.0

    def recent(self) -> np.ndarray:
        """Microseconds (step, compute, exchange, waiting for stages) of the last timed steps: (4, RECENT) at most."""
        kinds = self.timed_us, self.compute_us, self.exchange_us, self.stage_wait_us
        return np.array([kind[-RECENT:] for kind in kinds])


def _keep(kept: "array[float]", seconds: float, num_steps: int) -> None:
    kept.extend([seconds / num_steps * 1e6] * num_steps)
    if len(kept) > 2 * KEPT:
        del kept[:-KEPT]


def shares(everybody: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean shares of a step over ranks, from `recent` of all of them; they add up to 1.

    A rank that comes early waits in its exchange: the least that a step's exchange takes on any rank is the exchange,
    and what it takes longer on others is waiting. In a pipeline, "bubble" is the time in which stages wait for each other.
    """
    step, compute, exchange, stage_wait = np.stack(everybody, axis=1)
    if not step.size:
        return {}
    least = exchange.min(axis=0)
    parts = {
        "compute": (compute - stage_wait).mean(),
        "wait": (exchange - least).mean(),
        "exchange": least.mean(),
        "update": (step - compute - exchange).mean(),
    }
    if stage_wait.any():
        parts["bubble"] = stage_wait.mean()
    return {name: float(part / step.mean()) for name, part in parts.items()}


def late_rank(everybody: Sequence[np.ndarray], run_shares: Sequence[float]) -> dict[str, Any] | None:
    """Finds the rank that the others wait for most; None where it is less than `LATE_SHARE` of the time.

    A rank is late where it comes last to an exchange, or where it neither waits nor has a core while others do.

    Args:
        everybody: `recent` of all ranks.
        run_shares: `run_share` of all ranks.

    Returns:
        `rank`; `share`, of the time that the others wait for it; `run_share`, its own; `run_share_most`, of any rank.
    """
    step, _, exchange, _ = np.stack(everybody, axis=1)
    if len(step) == 1 or not step.size:
        return None
    waits = exchange - exchange.min(axis=0)
    others = waits.sum(axis=0) / (len(step) - 1)
    came_last = np.bincount(exchange.argmin(axis=0), weights=others, minlength=len(step)) / step.mean(axis=0).sum()
    there = np.minimum(1, run_shares + waits.sum(axis=1) / step.sum(axis=1))
    share = np.maximum(came_last, 1 - there / max(there.max(), 1e-9))
    rank = int(share.argmax())
    if share[rank] < LATE_SHARE:
        return None
    return {"rank": rank, "share": float(share[rank]), "run_share": run_shares[rank], "run_share_most": max(run_shares)}


def slow_rank(everybody: Sequence[Sequence[float]]) -> tuple[int, float] | None:
    """Finds the rank each of whose last `SLOW_STEPS` steps took over twice as long as the median step of the other ranks.

    Args:
        everybody: `StepCosts.busy_s` of all ranks.

    Returns:
        The rank, and how many times as long the quickest of them took; None: there is none.
    """
    if len(everybody) == 1 or any(len(steps) < SLOW_STEPS for steps in everybody):
        return None
    medians, least = [statistics.median(steps) for steps in everybody], [min(steps) for steps in everybody]
    rank = max(range(len(least)), key=least.__getitem__)
    others = statistics.median(medians[:rank] + medians[rank + 1 :])
    return (rank, least[rank] / others) if least[rank] > _SLOW * others > 0 else None


def median_us(values: "array[float]") -> float | None:
    return round(statistics.median(values), 2) if values else None
