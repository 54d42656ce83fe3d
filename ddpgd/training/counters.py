"""The state of a run in numbers: steps, samples, losses, gradient noise; and the type of a record."""

import math
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass
class Counters:
    """The state of a run in numbers. All of it is checkpointed; all but `train_s` is the same at any world size."""

    step: int = 0
    updates: int = 0
    samples: int = 0
    epoch_loss_sum: float = 0.0
    epoch_samples: int = 0
    log_loss_sum: float = 0.0
    log_samples: int = 0
    noise_sum: float = 0.0
    signal_sum: float = 0.0
    tested_at: int | None = None
    test_loss_mean: float | None = None
    test_accuracy: float | None = None
    train_s: float = 0.0
    loss_scale: float | None = None
    good_steps: int = 0

    @property
    def train_loss_mean(self) -> float:
        """Over the samples of the current epoch so far, or of the one that has just ended."""
        return self.epoch_loss_sum / self.epoch_samples

    def see_noise(self, squared_norm_sum: float, num_micro_batches: int, mean_norm: float, samples: int) -> None:
        """Smooths the two terms of the gradient noise scale, from micro-batch gradients and their sum.

        |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b), S = (|g_b|^2 - |g_B|^2) / (1/b - 1/B), b the mean micro-batch, B the
        global batch. McCandlish, Kaplan, Amodei et al., "An empirical model of large-batch training", 2018.
        """
        if num_micro_batches < 2 or not math.isfinite(mean_norm):
            return
        small = samples / num_micro_batches
        small_square = squared_norm_sum / num_micro_batches / small**2
        large_square = mean_norm**2
        signal = (samples * large_square - small * small_square) / (samples - small)
        noise = (small_square - large_square) / (1.0 / small - 1.0 / samples)
        self.signal_sum = 0.9 * self.signal_sum + signal
        self.noise_sum = 0.9 * self.noise_sum + noise

    @property
    def noise_scale(self) -> float | None:
        """The batch, in samples, beyond which a larger one saves few steps; None while it cannot be told."""
        return self.noise_sum / self.signal_sum if self.signal_sum > 0 else None
