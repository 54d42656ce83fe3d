"""Plots of the JSON of `benchmarks.exchange.run`: time against size, and the ratio to the link's least.

python -m benchmarks.exchange.plot benchmarks/exchange/exchange.json FOLDER         a PNG for each link and number of ranks
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.exchange.cases import CONTESTANTS, NETWORKS, aligned, limit_s, wire_bytes
from benchmarks.exchange.records import CaseFound, Found, GroupFound
from benchmarks.exchange.report import bytes_of, figures, title
from benchmarks.lib.pictures import draw_file, save_png

mpl.use("agg")
from matplotlib import pyplot as plt

STYLES = {
    "library": ("#555555", "s"),
    "fast": ("#e69f00", "^"),
    "ordered": ("#0072b2", "o"),
    "float16": ("#009e73", "v"),
    "float16+": ("#66c2a5", "<"),
    "bfloat16": ("#cc79a7", ">"),
    "int8": ("#d55e00", "D"),
}
"""Colour (told apart by the colour-blind too) and mark; forced one shot and segments have a table of their own."""
TICKS = [4, 64, 1 << 10, 16 << 10, 256 << 10, 4 << 20, 64 << 20]
WIDTH_PX, HEIGHT_PX, DPI = 1200, 960, 120


def draw(found: Found, folder: Path) -> list[Path]:
    """Writes exchange-LINK-RANKS.png for each group that has more than one size; their paths."""
    paths = []
    for group in found["groups"]:
        plain = [case for case in group["cases"] if case["num_micro_batches"] == aligned(group["num_ranks"])]
        by_size = sorted(plain, key=lambda case: case["size_bytes"])
        if len(by_size) > 1:
            path = folder / f"exchange-{group['link']}-{group['num_ranks']}.png"
            _draw_group(group, by_size, path)
            paths.append(path)
    return paths


def _draw_group(group: GroupFound, cases: list[CaseFound], path: Path) -> None:
    size = WIDTH_PX / DPI, HEIGHT_PX / DPI
    figure, (times, ratios) = plt.subplots(2, 1, figsize=size, sharex=True, height_ratios=(3, 2), layout="constrained")
    sizes = [case["size_bytes"] for case in cases]
    for name, (colour, mark) in STYLES.items():
        rows = [figures(case, name, group) for case in cases]
        medians = [1000 * row["time_s"]["median"] for row in rows]
        least, most = ([1000 * row["time_s"][end] for row in rows] for end in ("min", "max"))
        look: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 5, "linewidth": 1.6}
        times.plot(sizes, medians, label=CONTESTANTS[name].label, **look)
        times.fill_between(sizes, least, most, color=colour, alpha=0.15, linewidth=0)
        ratios.plot(sizes, [row["ratio"] for row in rows], **look)
    for name, dashes in (("fast", "--"), ("int8", ":")):
        times.plot(sizes, [1000 * _least(group, name, size) for size in sizes], color="black", linestyle=dashes, linewidth=1.5,
                   label=f"the link's least, {CONTESTANTS[name].codec}")  # fmt: skip
    ratios.axhline(1, color="black", linestyle="--", linewidth=1.5)
    _mark_networks(times, sizes)
    for axes in (times, ratios):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.spines[["top", "right"]].set_visible(False)
    ratios.set_xticks(TICKS, [bytes_of(tick) for tick in TICKS])
    ratios.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    ratios.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    ratios.set_xlabel("gradient, as float32")
    ratios.set_ylabel("x the link's least")
    times.set_ylabel("ms: median, least to most")
    figure.suptitle(f"Sum over {title(group)}", fontsize=12)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False, labelspacing=1.0)
    save_png(figure, path, DPI)
    plt.close(figure)


def _least(group: GroupFound, name: str, size_bytes: int) -> float:
    return limit_s(wire_bytes(name, size_bytes), group["num_ranks"], group["ping_pong"])


def _mark_networks(axes: Any, sizes: list[int]) -> None:
    """The three networks' gradients, as names at the bottom."""
    for name, size_bytes in NETWORKS.items():
        if sizes[0] <= size_bytes <= sizes[-1]:
            axes.axvline(size_bytes, color="#999999", linewidth=0.8, linestyle=":")
            short = name if len(name) < 20 else "12 M params"
            axes.annotate(short, (size_bytes, 0), (-3, 4), xycoords=("data", "axes fraction"),
                          textcoords="offset points", rotation=90, fontsize=8, color="#555555", ha="right")  # fmt: skip


def main(arguments: list[str]) -> int:
    """Draws the pictures of a JSON file into a folder; 0 done, 2 wrong usage."""
    return draw_file(arguments, "exchange_plot", draw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
