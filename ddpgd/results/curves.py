"""Charts of the records of runs: one run's figures side by side, or each figure of several runs in one chart."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ddpgd.results.chart import Point, Series, line_chart
from ddpgd.run.plots import AXES, comparable, is_drawable
from ddpgd.training.counters import Record


class Panel(NamedTuple):
    """A chart: its title, the fields of records that it shows by their names, their factor, its scale, where it ends."""

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


KINDS = ("", "training", "validation", "test")
"""Names of fields in panels; each has the same colour in all panels."""


def of_run(records: Sequence[Record], against: str, x_title: str) -> list[str]:
    """Returns a figure for each panel that a run has values for; names of lines are followed by their last values."""
    figures = []
    for panel in PANELS:
        lines = []
        for kind, field in panel.fields.items():
            points = _points(records, field, panel.factor, against)
            name = f"{kind} {points[-1][1]:.4g}" if kind and points else kind
            lines.append(Series(name, points, max(0, KINDS.index(kind) - 1)))
        figures.append(line_chart(_sentence(panel.title), x_title, lines, panel.is_log, most=panel.most))
    return list(filter(None, figures))


def of_runs(runs: Mapping[str, Sequence[Record]], against: str, panels: Sequence[Panel] = PANELS) -> list[str]:
    """Returns a figure for each field of the panels, with a line for each run, by their names."""
    figures = []
    for panel in panels:
        for kind, field in panel.fields.items():
            lines = [
                Series(name, _points(records, field, panel.factor, against), number)
                for number, (name, records) in enumerate(runs.items())
            ]
            title = _sentence(f"{kind} {panel.title}".strip())
            figures.append(line_chart(title, against, lines, panel.is_log, most=panel.most))
    return list(filter(None, figures))


def of_layers(records: Sequence[Record], names: Sequence[str], against: str) -> list[str]:
    """Returns a figure for each figure of layers in the records, with a line for each layer."""
    figures = []
    for field, layers in layer_figures(records, AXES[against]).items():
        lines = [
            Series(names[number] if number < len(names) else f"layer {number + 1}", points, number)
            for number, points in layers.items()
        ]
        words = " ".join(_WORDS.get(word, word) for word in field.split("_")[1:])
        figures.append(line_chart(_sentence(f"{words}, by layer"), against, lines, is_log="share" not in field))
    return list(filter(None, figures))


_WORDS = {"grad": "gradient", "param": "parameter", "dead": "dead-unit", "saturated": "saturated-unit"}
"""Words of fields, as they are written."""


def layer_figures(records: Sequence[Record], axis: str) -> dict[str, dict[int, list[Point]]]:
    """Returns points by field and number of layer, of all fields `layer_*` that hold a list of numbers."""
    found: dict[str, dict[int, list[Point]]] = {}
    for record in records:
        for field, values in record.items():
            if field.startswith("layer_") and isinstance(values, list):
                for number, value in enumerate(values):
                    if is_drawable(record.get(axis), value):
                        found.setdefault(field, {}).setdefault(number, []).append((record[axis], value))
    return found


def _points(records: Sequence[Record], field: str, factor: float, against: str) -> list[Point]:
    axis = AXES[against]
    return [(one[axis], factor * one[field]) for one in comparable(records, field, axis)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
