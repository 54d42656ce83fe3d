"""Plots of the JSON of `benchmarks.slow_links.run`: time to an accuracy against the speed of the link, a PNG a network.

python -m benchmarks.slow_links.plot benchmarks/slow_links/slow-links.json benchmarks/slow_links
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.lib.pictures import draw_file, save_png
from benchmarks.slow_links.cases import CONTESTANTS, LINKS, REFERENCE, TARGETS
from benchmarks.slow_links.conclusion import link_title, percent
from benchmarks.slow_links.figures import contestants, measured_links, measured_networks, times_to
from benchmarks.slow_links.records import Found

mpl.use("agg")
from matplotlib import pyplot as plt

COLOURS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#a5aa00", "#8c564b",
           "#444444")  # fmt: skip
MARKS = "osD^v<>PXh"
WIDTH_PX, HEIGHT_PX, DPI = 1200, 860, 100


def draw(found: Found, folder: Path) -> list[Path]:
    """Writes slow-links-NETWORK.png for each network with times; returns their paths."""
    links = [link for link in reversed(LINKS) if link in measured_links(found)]
    paths = []
    for network in measured_networks(found) if links else []:
        path = folder / f"slow-links-{network}.png"
        _draw_network(found, network, links, path)
        paths.append(path)
    return paths


def _draw_network(found: Found, network: str, links: list[str], path: Path) -> None:
    size = WIDTH_PX / DPI, HEIGHT_PX / DPI
    figure, panels = plt.subplots(len(TARGETS), 1, figsize=size, sharex=True, layout="constrained")
    for axes, target in zip(panels, reversed(TARGETS), strict=True):
        for name in contestants(found, network):
            _draw_line(axes, found, network, name, links, target)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel(f"s of training to {percent(target)}")
    panels[-1].set_xticks(range(len(links)), [link_title(link).removeprefix("links of ") for link in links])
    panels[-1].set_xlabel("link between two hosts")
    panels[0].set_title(f"{network} on two hosts: time to an accuracy; medians, least and most", fontsize=12)
    by_label = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(by_label.values(), by_label, loc="outside right upper", fontsize=8, frameon=False, labelspacing=1.0)
    save_png(figure, path, DPI)
    plt.close(figure)


def _draw_line(axes: Any, found: Found, network: str, name: str, links: list[str], target: float) -> None:
    """Draws one contestant: PyTorch's are dashed; that without a link is level."""
    contestant, number = CONTESTANTS[name], list(CONTESTANTS).index(name) - 1
    times = {place: times_to(found, network, link, name, target) for place, link in enumerate(links)}
    times = {place: own for place, own in times.items() if own}
    if not times:
        return
    if name == REFERENCE:
        level = statistics.median(times[next(iter(times))])
        axes.axhline(level, color="black", linewidth=1.8, linestyle=":", label=contestant.label)
        return
    medians = [statistics.median(own) for own in times.values()]
    spread = [[middle - min(own) for middle, own in zip(medians, times.values(), strict=True)],
              [max(own) - middle for middle, own in zip(medians, times.values(), strict=True)]]  # fmt: skip
    axes.errorbar(list(times), medians, spread, label=contestant.label, color=COLOURS[number % len(COLOURS)],
                  marker=MARKS[number % len(MARKS)], markersize=5, linewidth=1.4, capsize=2,
                  linestyle="--" if contestant.is_torch else "-")  # fmt: skip


def main(arguments: list[str]) -> int:
    """Draws the pictures of a JSON file into a folder; 0 done, 2 wrong usage."""
    return draw_file(arguments, "slow_links_plot", draw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
