"""The diagnoses of a run: a table of what goes wrong, as it is measured, and what to type about it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpgd.config.schema import Config
from ddpgd.data import checks
from ddpgd.data.idx import NUM_CLASSES
from ddpgd.data.mnist import Dataset
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD
from ddpgd.run.diagnosis_memory import Memory
from ddpgd.training.counters import Record

SHARED = 0.01
FAR_MEAN, SMALL_STD = 1.0, 0.25
LARGE_FIRST_LOSS, LARGE_LOSS, HARDLY_LESS = 10.0, 2.0, 0.9
LARGE_UPDATE, SMALL_UPDATE = 0.1, 1e-4
SKIPPED, VANISHED, DEAD = 0.5, 5e-3, 0.9
FEW = 100
"""Bounds of the rows, in the units of their sentences; losses in those of guessing. Healthy runs are far from each."""


def guessing_loss(config: Config) -> float:
    """Returns the loss of a network that gives all classes the same probability."""
    return math.log(NUM_CLASSES) if config.loss == "cross-entropy" else 1.0


@dataclass
class Seen:
    """Measurements that a diagnosis looks at: a run's configuration, its samples, its last record, those before.

    Attributes:
        memory: Of all records, the last one included.
        steps, skipped: Steps, and skipped updates among them, since the record before.
    """

    config: Config
    data: Dataset
    memory: Memory
    last: Record
    steps: int
    skipped: int

    @property
    def loss(self) -> float:
        """Mean training loss since the record before the last one, over that of guessing; infinite if it is not finite."""
        loss = self.last["train_loss_mean"]
        return math.inf if loss is None else loss / guessing_loss(self.config)

    @property
    def accuracy(self) -> float | None:
        """Accuracy on test or validation samples, where the last record has one, and an epoch is done."""
        found: float | None = self.last.get("validation_accuracy", self.last.get("test_accuracy"))
        return found if self.last["samples"] >= len(self.data.train_labels) else None


def _leak(seen: Seen) -> str:
    data = seen.data
    parts = {"validation": data.validation_images, "test": data.test_images}
    for name, images in parts.items():
        if (share := checks.shared_fraction(images, data.train_images)) >= SHARED:
            return (
                f"{share:.1%} of the {name} images are among the training images, so accuracy on them says little: "
                "take them out of one of the two, in the folder of --data"
            )
    return ""


def _input(seen: Seen) -> str:
    mean, std = checks.moments(seen.data.train_images)
    mean, std = (mean - PIXEL_MEAN) / PIXEL_STD, std / PIXEL_STD
    if abs(mean) < FAR_MEAN and std > SMALL_STD:
        return ""
    return (
        f"the pixels of the training images are not like MNIST's: normalised, their mean is {mean:.2f} and their standard "
        f"deviation {std:.2f}, where 0 and 1 are wanted; give --data images of 0 to 255, light on dark"
    )


def _zero_weights(seen: Seen) -> str:
    norms = seen.last.get("layer_param_norms", ())
    zero = [number for number, norm in enumerate(norms, start=1) if norm == 0]
    if not zero:
        return ""
    return f"all weights of {_layers(zero)} are 0, so its units stay alike; start anew, with --init he or xavier"


def _exploding_weights(seen: Seen) -> str:
    # float16 overflowed, and may do so once; or no client's update arrived.
    has_none = "loss_scale" in seen.last or seen.last.get("step_samples") == 0
    is_unknown = seen.last["train_loss_mean"] is None and has_none
    if seen.last["step"] > 1 or is_unknown or seen.loss < LARGE_FIRST_LOSS:
        return ""
    return (
        f"the loss of the first step is {seen.loss:.3g} times that of guessing, so the initial weights are too large; "
        "start anew, with --init he or xavier"
    )


def _loss_scale(seen: Seen) -> str:
    if "loss_scale" not in seen.last or seen.memory.num_records < 2 or seen.skipped < max(2, SKIPPED * seen.steps):
        return ""
    return (
        f"{seen.skipped} of the last {seen.steps} updates were skipped, since gradients overflow float16 at a loss scale of "
        f"{seen.last['loss_scale']:g}; type --precision bfloat16 or tf32"
    )


def _large_lr(seen: Seen) -> str:
    if seen.last["step"] == 1 or seen.loss < LARGE_LOSS or seen.memory.largest_update < LARGE_UPDATE:
        return ""
    return (
        f"the learning rate is too large: an update changed a layer by {seen.memory.largest_update:.2g} of its norm, and the "
        f"training loss is {seen.loss:.3g} times that of guessing; lower --lr {seen.config.lr:g}, or set --warmup or "
        "--clip-norm"
    )


def _vanishing(seen: Seen) -> str:
    largest = seen.memory.largest_shares
    if seen.memory.num_shares < 2:
        return ""
    few = [number for number, share in enumerate(largest, start=1) if 0 < share < VANISHED]
    if not few:
        return ""
    config = seen.config
    typed = [f"--{name} {best}" for name, best in (("activation", "relu"), ("init", "xavier"))]
    given = config.activation, config.init
    advice = [flag for flag, now in zip(typed, given, strict=True) if not flag.endswith(now)]
    return (
        f"{_layers(few)} {'receives' if len(few) == 1 else 'receive'} {largest[few[0] - 1]:.0e} of the last layer's "
        f"gradient: {config.activation}, {len(largest)} layers, init {config.init}; "
        f"try {' or '.join([*advice, 'fewer widths in --hidden'])}"
    )


def _dead(seen: Seen) -> str:
    shares = seen.last.get("layer_dead_shares", ())
    dead = [number for number, share in enumerate(shares, start=1) if share >= DEAD]
    if not dead:
        return ""
    return (
        f"{max(shares):.0%} of the units of {_layers(dead)} are 0 for all samples looked at, and learn nothing: dead relu; "
        "lower --lr, set --warmup, or try --activation tanh"
    )


def _small_lr(seen: Seen) -> str:
    first = seen.memory.first_loss
    if seen.accuracy is None or seen.memory.num_shares < 2 or not first:
        return ""
    less = seen.loss * guessing_loss(seen.config) / first
    if seen.memory.largest_update > SMALL_UPDATE or less < HARDLY_LESS:
        return ""
    return (
        f"the learning rate is too small: no update changed a layer by more than {seen.memory.largest_update:.0e} of its "
        f"norm, and the training loss is still {less:.0%} of the first one; raise --lr {seen.config.lr:g}"
    )


def _labels(seen: Seen) -> str:
    accuracy, data = seen.accuracy, seen.data
    labels = data.validation_labels if len(data.validation_labels) else data.test_labels
    chance = np.bincount(labels).max() / len(labels)
    num_known = min(len(data.train_labels), checks.MOST_SAMPLES) // 2
    if accuracy is None or accuracy > chance + _noise(chance, len(labels)) or num_known < FEW:
        return ""
    by_means = checks.class_mean_accuracy(data.train_images, data.train_labels)
    if by_means > chance + _noise(chance, num_known):
        return ""
    return (
        f"the training labels say nothing about their images: accuracy is {accuracy:.1%}, as by chance, and the nearest "
        f"mean image of a class finds {by_means:.1%} of them; look whether images and labels of --data are in the same order"
    )


def _noise(accuracy: float, num_samples: int) -> float:
    """Returns three standard deviations of an accuracy that is measured on so many samples."""
    return 3 * math.sqrt(accuracy * (1 - accuracy) / max(1, num_samples))


@dataclass(frozen=True)
class Diagnosis:
    """A row of `DIAGNOSES`.

    Attributes:
        name: What goes wrong.
        find: find(seen) -> the sentence, with what was measured and what to type; empty: nothing of the kind.
        once: True if it is asked at the first record alone.
        explains_all: True if nothing else need be told after it.
    """

    name: str
    find: Callable[[Seen], str]
    once: bool = False
    explains_all: bool = True


DIAGNOSES = (
    Diagnosis("unlike inputs", _input, once=True),
    Diagnosis("leak", _leak, once=True, explains_all=False),
    Diagnosis("zero weights", _zero_weights),
    Diagnosis("exploding weights", _exploding_weights),
    Diagnosis("loss scale", _loss_scale),
    Diagnosis("large lr", _large_lr),
    Diagnosis("vanishing gradient", _vanishing),
    Diagnosis("dead relu", _dead),
    Diagnosis("small lr", _small_lr),
    Diagnosis("labels", _labels),
)
"""From causes to their effects: after one that explains all, no other is told."""


class Diagnoses:
    """Looks at a run's records, on rank 0, and finds each diagnosis once.

    Attributes:
        memory: What it remembers.
    """

    def __init__(self, config: Config, data: Dataset, saved: Mapping[str, Any] | None = None) -> None:
        """`saved`: the memory of the run that goes on, as `asdict` gives it; None: it begins."""
        self.memory = Memory(**saved or {})
        self._config = config
        self._data = data

    def see(self, record: Record) -> list[str]:
        """Returns the sentences that a record adds."""
        memory, found = self.memory, []
        since = record["step"] - memory.step, record["skipped_updates"] - memory.skipped_updates
        memory.add(record)
        seen = Seen(self._config, self._data, memory, record, *since)
        for row in DIAGNOSES:
            if memory.is_explained:
                break
            if row.name in memory.told or (row.once and memory.num_records > 1):
                continue
            if sentence := row.find(seen):
                memory.told[row.name] = sentence
                memory.is_explained = row.explains_all
                found.append(sentence)
        return found


def _layers(numbers: list[int]) -> str:
    """Returns layers in words: "layer 2", "layers 1 to 3"."""
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"layers {numbers[0]} to {numbers[-1]}"
    return f"layers {', '.join(map(str, numbers))}"
