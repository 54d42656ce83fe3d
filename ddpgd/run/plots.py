"""Plots of runs, as PNG or SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpgd.config.units import enumerated
from ddpgd.errors import InputError
from ddpgd.run.output_files import OutputFile, check_files
from ddpgd.run.panels import AXES, LAYERS, PANELS, Panel, Point, points_of, points_of_layers
from ddpgd.run.records import read_records
from ddpgd.training.counters import Record

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours that colour-blind readers can tell apart: Wong, "Points of view: color blindness", 2011."""

STYLES = ("-", "--", ":", "-.")
DPI = 120
_FEW = 30
"""Points of a line that is drawn with a mark at each: fewer."""


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

    InputError: there is nothing to draw, matplotlib is missing, or the file cannot be written.
    """
    charts = [
        (
            f"{kind} {panel.title}".strip(),
            panel,
            [points_of(records, field, panel, against) for records in runs.values()],
        )
        for panel in PANELS
        for kind, field in panel.fields.items()
    ]
    shown = [chart for chart in charts if any(chart[2])]
    if not shown:
        raise InputError(f"{enumerated(list(runs))}: no records to draw; name runs that have made a step")
    layers = _layers(next(iter(runs.values())), against) if len(runs) == 1 else []
    count = len(shown) + len(layers)
    num_rows = (count + 1) // 2
    size = 12, 3.7 * num_rows
    figure, grid = pyplot().subplots(num_rows, 2, figsize=size, squeeze=False, sharex=True, layout="constrained")
    for axes, (title, panel, lines) in zip(grid.flat, shown, strict=False):
        _draw(axes, title, panel, dict(zip(runs, lines, strict=True)), against)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    for axes, (panel, named) in zip(grid.flat[len(shown) : count], layers, strict=True):
        _draw(axes, panel.title, panel, named, against)
        axes.legend(fontsize=8, ncols=2, framealpha=0.6)
    for axes in grid.flat[count:]:
        axes.remove()
    save_figure(figure, path, "--out")


def _layers(records: Sequence[Record], against: str) -> list[tuple[Panel, dict[str, list[Point]]]]:
    """Returns the panels of layers that a run has figures for, with the points of each layer by its name."""
    found = [(panel, points_of_layers(records, field, panel, against)) for field, panel in LAYERS.items()]
    return [
        (panel, {f"layer {number + 1}": points for number, points in layers.items()})
        for panel, layers in found
        if layers
    ]


def _draw(axes: Any, title: str, panel: Panel, lines: Mapping[str, Sequence[Point]], against: str) -> None:
    """Draws lines by their names."""
    for number, (label, points) in enumerate(lines.items()):
        places, values = zip(*points, strict=True) if points else ((), ())
        style, mark = STYLES[number // len(COLOURS) % len(STYLES)], "o" if len(points) < _FEW else None
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(places, values, style, color=colour, marker=mark, markersize=3.5, linewidth=1.5, label=label)
    axes.set_title(title, fontsize=11, pad=14)  # above the power of ten of the axis
    axes.set_xlabel(against)
    axes.tick_params(labelbottom=True)
    axes.grid(visible=True, alpha=0.3)
    least = min((value for points in lines.values() for _, value in points), default=1.0)
    if panel.is_log and least > 0:
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]) if least >= 0 else None)
    axes.set_ylim(top=min(axes.get_ylim()[1], panel.most))


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
