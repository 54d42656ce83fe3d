"""What the steps of a process cost: sums, and medians over steps."""

import statistics
from array import array

from ddpgd.step import StepResult


class StepCosts:
    """What this process's steps cost on this rank; times in seconds, or microseconds a step."""

    def __init__(self) -> None:
        self.samples = 0
        self.step_s = self.compute_s = self.update_s = 0.0
        self.step_us = array("d")
        self.exchange_us = array("d")
        self.wire_bytes = 0
        self._last_samples, self._last_s = 0, 0.0

    def add(self, result: StepResult) -> None:
        self.samples += result.samples
        self.step_s += result.step_s
        self.compute_s += result.compute_s
        self.update_s += result.step_s - result.compute_s - result.exchange_s
        for _ in range(result.num_steps):
            self.step_us.append(result.step_s / result.num_steps * 1e6)
            self.exchange_us.append(result.exchange_s / result.num_steps * 1e6)
        self.wire_bytes += result.num_steps * result.wire_bytes

    def samples_per_s_since_last(self) -> float:
        samples, seconds = self.samples - self._last_samples, self.step_s - self._last_s
        self._last_samples, self._last_s = self.samples, self.step_s
        return samples / seconds


def median_us(values: "array[float]") -> float | None:
    return round(statistics.median(values), 2) if values else None
