"""Plots of runs, as PNG or SVG."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ddpgd.errors import InputError
from ddpgd.run.output_files import OutputFile, check_files
from ddpgd.run.records import read_records
from ddpgd.training.counters import Record

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours that colour-blind readers can tell apart: Wong, "Points of view: color blindness", 2011."""

STYLES = ("-", "--", ":", "-.")
_PERCENT = 100.0
"""The factor of shares, whose axes end at 100 %."""

PANELS = (
    ("train_loss_mean", "training loss, mean since the last record", 1.0),
    ("lr", "learning rate", 1.0),
    ("grad_norm", "norm of the mean gradient", 1.0),
    ("samples_per_s", "samples/s", 1.0),
)
"""Fields of records: name, title, factor."""

EVALUATION_PANELS = {
    "test": (("test_loss_mean", "test loss, mean", 1.0), ("test_accuracy", "test accuracy, %", _PERCENT)),
    "validation": (
        ("validation_loss_mean", "validation loss, mean", 1.0),
        ("validation_accuracy", "validation accuracy, %", _PERCENT),
    ),
}
"""Those of evaluations, by the samples that they are on."""

CLIENT_PANELS = (
    ("client_accuracy_worst_decile", "accuracy of the worst tenth of clients, %", _PERCENT),
    ("drift", "distance of clients or ranks from their mean, over its move", 1.0),
)
"""Those of federated runs, which have the first of these fields."""

LAYER_PANELS = {
    "layer_grad_norms": "norm of the mean gradient, by layer",
    "layer_update_ratios": "norm of the update over that of the params, by layer",
    "layer_dead_shares": "dead units, %, by hidden layer",
    "layer_saturated_shares": "saturated units, %, by hidden layer",
    "layer_param_norms": "norm of the params, by layer",
}
"""Fields of records with a number for each layer, and their titles; drawn where there is one run."""

AXES = {"step": "step", "samples": "samples", "seconds": "train_s"}
"""Fields of records by the names of horizontal axes: steps, which may be rounds, samples computed, seconds of training."""

LOGARITHMIC = ("train_loss_mean", "test_loss_mean", "validation_loss_mean", "grad_norm")
DPI = 120


def draw_folders(folders: Sequence[Path], path: Path, against: str = "step") -> None:
    """Draws the records of run folders, by their names, over each other. `against`: one of `AXES`.

    InputError: a folder has no records, matplotlib is missing, the file cannot be written, or there is no such axis.
    """
    if against not in AXES:
        raise InputError(f"against: there is no axis {against!r}; type {', '.join(AXES)}")
    names = [folder.name for folder in folders]
    titles = names if len(set(names)) == len(names) else list(map(str, folders))
    draw_runs({title: read_records(folder) for title, folder in zip(titles, folders, strict=True)}, path, against)


def draw_runs(runs: Mapping[str, Sequence[Record]], path: Path, against: str) -> None:
    """Draws records of runs, by title, over each other.

    InputError: matplotlib is missing, or the file cannot be written.
    """
    plt, axis = pyplot(), AXES[against]
    names = {name for records in runs.values() for one in records for name in one}
    kinds = [kind for kind, pair in EVALUATION_PANELS.items() if pair[0][0] in names] or ["test"]
    panels = PANELS[:1] + tuple(chain.from_iterable(EVALUATION_PANELS[kind] for kind in kinds)) + PANELS[1:]
    panels += CLIENT_PANELS * (CLIENT_PANELS[0][0] in names)
    of_layers = [name for name in LAYER_PANELS if name in names and len(runs) == 1]
    of_layers = of_layers[: len(of_layers) // 2 * 2]
    num_rows = (len(panels) + len(of_layers)) // 2
    figure, grid = plt.subplots(num_rows, 2, figsize=(12, 3.7 * num_rows), sharex=True, layout="constrained")
    for axes, (name, title, factor) in zip(grid.flat, panels, strict=False):
        drawn = [
            _line(axes, number, label, [(one[axis], factor * one[name]) for one in comparable(records, name, axis)])
            for number, (label, records) in enumerate(runs.items())
        ]
        axes.set_title(title, fontsize=11)
        axes.grid(visible=True, alpha=0.3)
        if name in LOGARITHMIC and min(drawn) > 0:
            axes.set_yscale("log")
        if factor == _PERCENT:
            axes.set_ylim(top=min(axes.get_ylim()[1], 100.0))
    for axes, name in zip(grid.flat[len(panels) :], of_layers, strict=True):
        _draw_layers(axes, name, next(iter(runs.values())), axis)
    for axes in grid[-1]:
        axes.set_xlabel(against)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    save_figure(figure, path, "--out")


def _draw_layers(axes: Any, name: str, records: Sequence[Record], axis: str) -> None:
    """Draws a line for each layer, logarithmic but for shares, which are in percent."""
    is_share, found = name.endswith("_shares"), [one for one in records if one.get(name)]
    for number in range(len(found[0][name]) if found else 0):
        values = [(one[axis], one[name][number]) for one in found if is_drawable(one.get(axis), one[name][number])]
        points = [(at, 100 * value if is_share else value) for at, value in values if is_share or value > 0]
        _line(axes, number, f"layer {number + 1}", points)
    axes.set_title(LAYER_PANELS[name], fontsize=11)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, ncols=2, framealpha=0.6)
    if not is_share:
        axes.set_yscale("log")


def is_drawable(*values: float | None) -> bool:
    """Returns whether all values are there and finite."""
    return all(value is not None and math.isfinite(value) for value in values)


def comparable(records: Sequence[Record], name: str, axis: str = "step") -> list[Record]:
    """Returns the records with a value of `name` at a place on `axis`, both finite, that can be compared with the others.

    The gradient of a short last batch has a larger norm, which looks like instability; the first step includes start-up.
    """
    full = max((one.get("step_samples", 0) for one in records), default=0)
    return [
        one
        for one in records
        if is_drawable(one.get(name), one.get(axis))
        and not (name == "grad_norm" and one.get("step_samples", full) < full)
        and not (name == "samples_per_s" and one["step"] == 1)
    ]


def _line(axes: Any, number: int, label: str, points: list[tuple[float, float]]) -> float:
    """Draws the line of a run; returns its lowest value."""
    steps, values = zip(*points, strict=True) if points else ((), ())
    style, mark = STYLES[number // len(COLOURS) % len(STYLES)], "o" if len(points) < 30 else None
    colour = COLOURS[number % len(COLOURS)]
    axes.plot(steps, values, style, color=colour, marker=mark, markersize=3.5, linewidth=1.5, label=label)
    return min(values, default=1.0)


def picture_file(path: Path, flag: str) -> OutputFile:
    """Returns a picture to be written. Raises InputError if matplotlib is not installed."""
    pyplot()
    from matplotlib.backend_bases import FigureCanvasBase

    suffixes = (".png", ".svg", *(f".{name}" for name in FigureCanvasBase.get_supported_filetypes()))
    return OutputFile(flag, path, "a picture of ddpgd", "Matplotlib", suffixes)


def check_picture(path: Path, flag: str) -> None:
    """Raises InputError if a picture cannot be written there, or a file is there that is none of matplotlib's."""
    check_files([picture_file(path, flag)])


def save_figure(figure: Any, path: Path, flag: str) -> None:
    """Writes a figure. Raises InputError, which names the flag, if it cannot be written."""
    try:
        check_picture(path, flag)
        figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{flag}: {str(path)!r} cannot be written ({error}); name a file as plot.png or plot.svg"
        ) from None
    finally:
        pyplot().close(figure)


def pyplot() -> Any:
    """Returns matplotlib.pyplot, set to draw into files. Raises InputError if it is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise InputError("plots need matplotlib; type pip install 'ddpgd[plots]'") from None
    mpl.use("agg")
    from matplotlib import pyplot

    return pyplot
