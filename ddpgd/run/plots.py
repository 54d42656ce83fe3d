"""Pictures of runs, as PNG or SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpgd.errors import InputError
from ddpgd.training.counters import Record

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart by the colour-blind too: Wong, "Points of view: color blindness", 2011."""

STYLES = ("-", "--", ":", "-.")
PANELS = (
    ("train_loss_mean", "training loss, mean", 1.0),
    ("test_loss_mean", "test loss, mean", 1.0),
    ("test_accuracy", "test accuracy, %", 100.0),
    ("lr", "learning rate", 1.0),
    ("grad_norm", "norm of the mean gradient", 1.0),
    ("samples_per_s", "samples/s", 1.0),
)
"""Of records: name, title, factor."""

LOGARITHMIC = ("train_loss_mean", "test_loss_mean", "grad_norm")
DPI = 120


def draw_runs(runs: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Records of runs, by title, against steps, laid over each other.

    InputError: matplotlib is missing, or the file cannot be written.
    """
    plt = pyplot()
    figure, grid = plt.subplots(3, 2, figsize=(12, 11), sharex=True, layout="constrained")
    for axes, (name, title, factor) in zip(grid.flat, PANELS, strict=True):
        drawn = [
            _line(
                axes, number, label, [(one["step"], factor * one[name]) for one in records if one.get(name) is not None]
            )
            for number, (label, records) in enumerate(runs.items())
        ]
        axes.set_title(title, fontsize=11)
        axes.grid(visible=True, alpha=0.3)
        if name in LOGARITHMIC and min(drawn) > 0:
            axes.set_yscale("log")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    save_figure(figure, path, "--out")


def _line(axes: Any, number: int, label: str, points: list[tuple[int, float]]) -> float:
    """The line of a run; its lowest value."""
    steps, values = zip(*points, strict=True) if points else ((), ())
    style, mark = STYLES[number // len(COLOURS) % len(STYLES)], "o" if len(points) < 30 else None
    colour = COLOURS[number % len(COLOURS)]
    axes.plot(steps, values, style, color=colour, marker=mark, markersize=3.5, linewidth=1.5, label=label)
    return min(values, default=1.0)


def save_figure(figure: Any, path: Path, flag: str) -> None:
    """InputError: it cannot be written; the line names the flag."""
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{flag}: {str(path)!r} cannot be written ({error}); name a file as plot.png or plot.svg"
        ) from None
    finally:
        pyplot().close(figure)


def pyplot() -> Any:
    """matplotlib's, which draws into files. InputError: it is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise InputError("plots need matplotlib; type pip install 'ddpgd[plots]'") from None
    mpl.use("agg")
    from matplotlib import pyplot

    return pyplot
