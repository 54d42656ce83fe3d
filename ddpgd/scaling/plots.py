"""Plots of a scaling measurement: throughput and efficiency against ranks, and the parts of a step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddpgd.run.plots import COLOURS, pyplot
from ddpgd.scaling.analysis import Row
from ddpgd.scaling.cases import ISOLATED, STRONG, WEAK

DPI = 120
PARTS = {"compute": "#009e73", "update": "#56b4e9", "bubble": "#cc79a7", "wait": "#e69f00", "exchange": "#d55e00"}
TITLES: dict[str, str] = {STRONG: "Strong scaling: the same global batch", WEAK: "Weak scaling: the same work a rank"}


def draw(made: list[Row], folder: Path) -> list[Path]:
    """Writes strong, weak and shares, each as PNG and SVG, where there are cases; returns the paths of the SVGs."""
    figures = {mode: _mode(made, mode) for mode in TITLES if any(row.case.mode == mode for row in made)}
    figures["shares"] = _shares(made)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=DPI)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot().close(figure)
    return [folder / f"{name}.svg" for name in figures]


def _mode(made: list[Row], mode: str) -> Any:
    """Draws throughput above, efficiency below, against ranks."""
    figure, (above, below) = pyplot().subplots(2, 1, figsize=(5.4, 7.4), sharex=True, layout="constrained")
    own = [row for row in made if row.case.mode == mode]
    ranks = sorted({row.case.num_ranks for row in own})
    for number, (setting, line) in enumerate(_lines(made, mode)):
        style = {"color": COLOURS[number % len(COLOURS)], "label": setting, "marker": "o", "capsize": 3}
        _line(above, line, "samples_per_s", 1, style)
        _line(below, line, "efficiency", 100, style)
        _perfect(above, line)
    for _, line in _lines(made, ISOLATED) if mode == WEAK else ():
        style = {"color": "#777777", "label": "one-rank runs side by side", "marker": "s", "capsize": 3}
        _line(below, line, "efficiency", 100, style | {"linestyle": "--"})
    _mark_oversubscribed(above, below, own, ranks)
    below.axhline(100, color="black", linestyle=":", linewidth=1)
    above.set(title=TITLES[mode], ylabel="samples/s", xscale="log", yscale="log")
    highest = max(100 * row.efficiency.most for row in own)
    below.set(xlabel="ranks", ylabel="efficiency, %", xscale="log", ylim=(0, max(110, 1.05 * highest)))
    above.locator_params(axis="y", subs=(1, 2, 5))
    above.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axes in (above, below):
        axes.set_xticks(ranks, [f"{number:,}" for number in ranks])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    pairs = [pair for axes in (above, below) for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    labelled = {label: handle for handle, label in pairs}
    figure.legend(labelled.values(), labelled, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _lines(made: list[Row], mode: str) -> Iterator[tuple[str, list[Row]]]:
    """Yields rows of a mode by setting; each line begins at its baseline, except that of runs side by side."""
    own = [row for row in made if row.case.mode == mode]
    for setting in dict.fromkeys(row.case.setting for row in own if row.case.num_ranks > 1):
        line = [row for row in own if row.case.setting == setting and row.case.num_ranks > 1]
        times = line[0].case.accumulate
        base = [row for row in own if row.case.num_ranks == 1 and row.case.accumulate == times]
        yield setting, base + line


def _line(axes: Any, own: list[Row], name: str, factor: float, style: dict[str, Any]) -> None:
    figures = [getattr(row, name) for row in own]
    middle = [factor * one.median for one in figures]
    spread = [
        [factor * (one.median - one.least) for one in figures],
        [factor * (one.most - one.median) for one in figures],
    ]
    axes.errorbar([row.case.num_ranks for row in own], middle, spread, linewidth=1.5, markersize=4.5, **style)


def _perfect(axes: Any, own: list[Row]) -> None:
    base = own[0]
    ranks = [row.case.num_ranks for row in own]
    axes.plot(ranks, [number * base.samples_per_s.median for number in ranks], color="black", linestyle=":", linewidth=1,
              label="perfect")  # fmt: skip


def _mark_oversubscribed(above: Any, below: Any, made: list[Row], ranks: list[int]) -> None:
    """Shades counts that share cores or GPUs."""
    shared = sorted({row.case.num_ranks for row in made if row.is_oversubscribed})
    if not shared:
        return
    before = [number for number in ranks if number < shared[0]]
    left = (before[-1] * shared[0]) ** 0.5 if before else shared[0] * 0.8
    for axes in (above, below):
        axes.axvspan(left, shared[-1] * 1.15, color="#999999", alpha=0.15, linewidth=0, label="oversubscribed")


def _shares(made: list[Row]) -> Any:
    """Draws bars of milliseconds a step: each part, beside the perfect step."""
    own = [row for row in made if row.case.mode != ISOLATED]
    figure, axes = pyplot().subplots(figsize=(10, 1.6 + 0.42 * len(own)), layout="constrained")
    places = range(len(own))
    left = [0.0] * len(own)
    for part, colour in PARTS.items():
        widths = [row.step_ms * row.shares[part] for row in own]
        axes.barh(places, widths, left=left, color=colour, label=part, height=0.7)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    perfect = [row.perfect_ms for row in own]
    axes.vlines(perfect, [place - 0.42 for place in places], [place + 0.42 for place in places], color="black", linewidth=2,
                label="a perfect step")  # fmt: skip
    names = [
        f"{row.case.mode}, {row.case.num_ranks} rank{'s' if row.case.num_ranks > 1 else ''}, {row.case.setting}"
        + (" (oversubscribed)" if row.is_oversubscribed else "")
        for row in own
    ]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlabel="ms a step", title="Parts of a step, mean over ranks")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="x", alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(PARTS) + 1, frameon=False)
    return figure
