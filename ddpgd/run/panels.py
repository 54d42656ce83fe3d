"""The panels of pictures and pages: which figures of a run's records they draw, and over what. A new one is a row here."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ddpgd.training.counters import Record

Point = tuple[float, float]

_TOO_LARGE = 1e100

AXES = {"step": "step", "samples": "samples", "seconds": "train_s"}
"""Fields of records by the names of horizontal axes: steps, which may be rounds, samples computed, seconds of training."""


class Panel(NamedTuple):
    """One chart.

    Attributes:
        title: What is drawn, with its unit.
        fields: Fields of records by their names, which come before the title where each has a chart of its own.
        factor: On values.
        is_log: The vertical axis is logarithmic.
        most: The largest value that there can be.
    """

    title: str
    fields: Mapping[str, str]
    factor: float = 1.0
    is_log: bool = False
    most: float = math.inf


RESULTS = (
    Panel(
        "loss, mean",
        {"training": "train_loss_mean", "validation": "validation_loss_mean", "test": "test_loss_mean"},
        is_log=True,
    ),
    Panel("accuracy, %", {"validation": "validation_accuracy", "test": "test_accuracy"}, 100.0, most=100.0),
)
PANELS = (
    *RESULTS,
    Panel("learning rate", {"": "lr"}),
    Panel("norm of the mean gradient", {"": "grad_norm"}, is_log=True),
    Panel("gradient noise scale, samples", {"": "noise_scale"}, is_log=True),
    Panel("throughput, samples/s", {"": "samples_per_s"}),
    Panel("accuracy of the worst tenth of clients, %", {"": "client_accuracy_worst_decile"}, 100.0, most=100.0),
    Panel("distance of clients or ranks from their mean, over its move", {"": "drift"}),
)
LAYERS = {
    "layer_grad_norms": Panel("norm of the mean gradient, by layer", {}, is_log=True),
    "layer_update_ratios": Panel("norm of the update over that of the params, by layer", {}, is_log=True),
    "layer_dead_shares": Panel("dead units, %, by hidden layer", {}, 100.0, most=100.0),
    "layer_saturated_shares": Panel("saturated units, %, by hidden layer", {}, 100.0, most=100.0),
    "layer_param_norms": Panel("norm of the params, by layer", {}, is_log=True),
}
"""Panels of one run, by the field of records that has a number for each layer."""


def points_of(records: Sequence[Record], field: str, panel: Panel, against: str) -> list[Point]:
    """Returns the points of a field. `against`: a name of `AXES`."""
    axis = AXES[against]
    return [(one[axis], panel.factor * one[field]) for one in comparable(records, field, axis)]


def points_of_layers(records: Sequence[Record], field: str, panel: Panel, against: str) -> dict[int, list[Point]]:
    """Returns the points of each layer that has some, by its number."""
    axis, found = AXES[against], dict[int, list[Point]]()
    for record in records:
        for number, value in enumerate(record.get(field) or ()):
            if _is_drawable(record.get(axis), value) and (value > 0 or not panel.is_log):
                found.setdefault(number, []).append((record[axis], panel.factor * value))
    return found


def comparable(records: Sequence[Record], name: str, axis: str = "step") -> list[Record]:
    """Returns the records with a value of `name` at a place on `axis`, which can be drawn and compared with the others.

    The gradient of a short last batch has a larger norm, which looks like instability; the first step includes start-up.
    """
    full = max((one.get("step_samples", 0) for one in records), default=0)
    return [
        one
        for one in records
        if _is_drawable(one.get(name), one.get(axis))
        and not (name == "grad_norm" and one.get("step_samples", full) < full)
        and not (name == "samples_per_s" and one["step"] == 1)
    ]


def _is_drawable(*values: float | None) -> bool:
    """Returns whether all values are there, and of a size that can be drawn."""
    return all(value is not None and abs(value) < _TOO_LARGE for value in values)
