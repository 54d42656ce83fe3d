"""The state of a run in numbers: steps, samples, losses, gradient noise; and the type of a record."""

import math
from dataclasses import dataclass
from typing import Any

from ddpgd.optim.schedules import Plateau

Record = dict[str, Any]


OF_EVALUATIONS = (
    *("tested_at", "test_loss_mean", "test_accuracy", "validated_at", "validation_loss_mean", "validation_accuracy"),
    *("best_loss_mean", "best_accuracy", "evaluations_since_best"),
)
"""The counters of evaluations, and of the best one among them."""


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
    """Where there are validation samples, this is the step of the best evaluation on them."""
    test_loss_mean: float | None = None
    test_accuracy: float | None = None
    validated_at: int | None = None
    validation_loss_mean: float | None = None
    validation_accuracy: float | None = None
    best_loss_mean: float | None = None
    best_accuracy: float | None = None
    evaluations_since_best: int = 0
    lr_factor: float = 1.0
    """Factor on the schedule's learning rates, which plateaus lower."""
    plateau_loss_mean: float | None = None
    """The best loss on the validation samples, by the threshold of the plateau."""
    evaluations_on_plateau: int = 0
    grad_norm: float | None = None
    """Of the last step that was recorded."""
    last_epoch_loss: float | None = None
    epoch_loss_fall: float | None = None
    """Fraction by which the mean training loss of the last whole epoch was below that of the one before."""
    length_changed_at: int | None = None
    """The step after which a resume gave the run another length, and so another schedule of learning rates."""
    train_s: float = 0.0
    loss_scale: float | None = None
    good_steps: int = 0

    @property
    def train_loss_mean(self) -> float:
        """Over the samples of the current epoch so far, or of the one that has just ended."""
        return self.epoch_loss_sum / self.epoch_samples

    @property
    def evaluated_at(self) -> int | None:
        """The step of the last evaluation: on validation samples, where there are any."""
        return self.tested_at if self.validated_at is None else self.validated_at

    @property
    def accuracy(self) -> float | None:
        """That of the last evaluation: on validation samples, where there are any."""
        return self.test_accuracy if self.validated_at is None else self.validation_accuracy

    @property
    def loss_mean(self) -> float | None:
        """As `accuracy`; None too where it is not finite."""
        return self.test_loss_mean if self.validated_at is None else self.validation_loss_mean

    def see_test(self, loss_mean: float, accuracy: float) -> None:
        """Notes an evaluation on the test samples."""
        self.tested_at, self.test_loss_mean, self.test_accuracy = self.step, finite_or_none(loss_mean), accuracy

    def see_validation(self, loss_mean: float, accuracy: float, is_due: bool) -> bool:
        """Notes an evaluation on the validation samples; True: it is the best, by accuracy, and by loss where that is equal.

        `is_due`: see `Evaluations`; other evaluations try no patience.
        """
        loss = finite_or_none(loss_mean)
        self.validated_at, self.validation_loss_mean, self.validation_accuracy = self.step, loss, accuracy
        is_best = self.best_accuracy is None or _merit(accuracy, loss) > _merit(self.best_accuracy, self.best_loss_mean)
        self.evaluations_since_best += is_due
        if is_best:
            self.best_loss_mean, self.best_accuracy, self.evaluations_since_best = loss, accuracy, 0
        return is_best

    def see_plateau(self, plateau: Plateau) -> bool:
        """Compares the last loss on the validation samples with the best; True: it has lowered `lr_factor`."""
        best, waited = self.plateau_loss_mean, self.evaluations_on_plateau
        best, waited, is_lowered = plateau.see(self.validation_loss_mean, best, waited)
        self.plateau_loss_mean, self.evaluations_on_plateau = best, waited
        if is_lowered:
            self.lr_factor *= plateau.factor
        return is_lowered

    def see_grad_norm(self, norm: float) -> None:
        """Notes the norm of the mean gradient of a step that is recorded."""
        self.grad_norm = finite_or_none(norm)

    def end_epoch(self) -> None:
        """Compares the training loss of the epoch that has just ended with the one before."""
        now = finite_or_none(self.train_loss_mean) if self.epoch_samples else None
        before, self.last_epoch_loss = self.last_epoch_loss, now
        self.epoch_loss_fall = (before - now) / before if before and now is not None else None

    def see_noise(self, squared_norm_sum: float, num_micro_batches: int, mean_norm: float, samples: int) -> None:
        """Smooths the two terms of the gradient noise scale, from micro-batch gradients and their sum.

        |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b), S = (|g_b|^2 - |g_B|^2) / (1/b - 1/B), b the mean micro-batch, B the
        global batch. McCandlish, Kaplan, Amodei et al., "An empirical model of large-batch training", 2018.
        """
        if num_micro_batches < 2 or not math.isfinite(mean_norm) or not math.isfinite(squared_norm_sum):
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
        return finite_or_none(self.noise_sum / self.signal_sum) if self.signal_sum > 0 else None


def _merit(accuracy: float, loss_mean: float | None) -> tuple[float, float]:
    return accuracy, -math.inf if loss_mean is None else -loss_mean


def finite_or_none(value: float) -> float | None:
    """`value`; None where it is not finite, because JSON knows no such number."""
    return value if math.isfinite(value) else None
