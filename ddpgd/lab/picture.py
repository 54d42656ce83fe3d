"""Pictures of a descent: its path over the function, where that has one or two params, and the loss of each step."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddpgd.errors import InputError
from ddpgd.lab.derivatives import mean_loss
from ddpgd.lab.descent import Descent
from ddpgd.lab.functions import Function
from ddpgd.lab.verdict import Progress
from ddpgd.run.output_files import OutputFile
from ddpgd.run.plots import COLOURS, pyplot, save_figure

_NUM_POINTS = 61
_MOST_FRAMES = 60
_FRAMES_PER_S = 12
_MARGIN = 0.2


def draw(function: Function, found: Descent, file: Path) -> None:
    """Draws a descent as PNG or SVG. Raises InputError if matplotlib is missing, or the file cannot be written."""
    figure, *_ = _figure(function, found.path)
    save_figure(figure, file, "--out")


def animation_file(file: Path, flag: str) -> OutputFile:
    """Returns an animation to be written. Raises InputError if matplotlib is not installed."""
    pyplot()
    return OutputFile(flag, file, "a GIF", "GIF8", (".gif",))


def animate(function: Function, found: Descent, file: Path) -> None:
    """Draws a descent as it grows, as GIF. Raises InputError if matplotlib is missing, or the file cannot be written."""
    figure, path_line, loss_line = _figure(function, found.path)
    from matplotlib.animation import FuncAnimation, PillowWriter

    whole = [line.get_data() for line in (path_line, loss_line) if line]
    last = len(found.path)
    ends = sorted({*range(1, last + 1, max(1, -(-last // _MOST_FRAMES))), last})

    def show(end: int) -> list[Any]:
        lines = [line for line in (path_line, loss_line) if line]
        for line, (x, y) in zip(lines, whole, strict=True):
            line.set_data(x[:end], y[:end])
        return lines

    try:
        FuncAnimation(figure, show, frames=ends).save(file, PillowWriter(_FRAMES_PER_S), dpi=80)
    except OSError as error:
        raise InputError(
            f"--animate: {str(file)!r} cannot be written ({error.strerror}); name a file as descent.gif"
        ) from None
    finally:
        pyplot().close(figure)


def _figure(function: Function, path: Sequence[Progress]) -> tuple[Any, Any, Any]:
    """Returns a figure, the line of its path (None: the function has too many params), and that of its loss."""
    drawn = {1: _curve, 2: _contours}.get(len(function.params))
    shown = [one for one in path if math.isfinite(one.loss)]
    panels = 2 if drawn else 1
    figure, axes = pyplot().subplots(1, panels, figsize=(6 * panels, 4.5), layout="constrained", squeeze=False)
    figure.suptitle(function.name)
    path_line = drawn(axes[0, 0], function, shown) if drawn else None
    losses = np.array([one.loss for one in shown])
    axis = axes[0, -1]
    (loss_line,) = axis.plot(range(len(losses)), losses, color=COLOURS[0], marker="." if len(losses) < 100 else None)
    axis.set(xlabel="step", ylabel="mean loss")
    axis.grid(alpha=0.3)
    if losses.min() > 0:
        axis.set_yscale("log")
    return figure, path_line, loss_line


def _curve(axis: Any, function: Function, path: Sequence[Progress]) -> Any:
    (span,) = _spans(function, path)
    x = np.linspace(*span, 4 * _NUM_POINTS)
    axis.plot(x, [mean_loss(function, [one]) for one in x], color="#888888")
    (line,) = axis.plot(
        [one.point[0] for one in path], [one.loss for one in path], "o-", color=COLOURS[1], markersize=4
    )
    axis.set(xlim=span, xlabel=function.params[0].name, ylabel="mean loss")
    axis.grid(alpha=0.3)
    return line


def _contours(axis: Any, function: Function, path: Sequence[Progress]) -> Any:
    spans = _spans(function, path)
    x, y = (np.linspace(*span, _NUM_POINTS) for span in spans)
    losses = np.array([[mean_loss(function, [one, other]) for one in x] for other in y])
    above = np.log1p(losses - np.nanmin(losses))  # valleys and walls on one scale
    axis.contourf(x, y, np.ma.masked_invalid(above), levels=30, cmap="Blues_r")
    points = np.array([one.point for one in path])
    (line,) = axis.plot(points[:, 0], points[:, 1], "o-", color=COLOURS[1], markersize=4, linewidth=1)
    if function.answer:
        axis.plot(*function.answer, "x", color="black", label="closed form")
        axis.legend(loc="upper right")
    axis.set(xlim=spans[0], ylim=spans[1], xlabel=function.params[0].name, ylabel=function.params[1].name)
    return line


def _spans(function: Function, path: Sequence[Progress]) -> list[tuple[float, float]]:
    """Returns what is shown of each param: the function's box; without one, where the path went, and some more."""
    if function.box:
        return list(function.box)
    points = np.array([one.point for one in path])
    lowest, highest = points.min(axis=0), points.max(axis=0)
    more = np.maximum(_MARGIN * (highest - lowest), 1e-3 * np.maximum(1, np.abs(highest)))
    return list(zip((lowest - more).tolist(), (highest + more).tolist(), strict=True))
