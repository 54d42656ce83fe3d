"""Charts as SVG: lines against steps, with their names at their ends; colours are those of the page's theme."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import NamedTuple

from ddpgd.results.scales import HIGHEST_POWER, LOWEST_POWER, log_ticks, number_text, ticks
from ddpgd.run.page import NUM_COLOURS
from ddpgd.run.panels import Point

WIDTH, HEIGHT = 560, 290
_LEFT, _TOP, _BOTTOM = 58, 10, 42
_LETTER, _LABEL_GAP, _LONGEST = 6.6, 16, 22
_DASHES = ("", "6 3", "2 2", "8 3 2 3")

STYLE = """
.chart { width: 100%; height: auto; display: block; font-size: 12px; }
.chart text { fill: var(--soft); } .chart .name { fill: var(--ink); }
.chart .grid { stroke: var(--line); stroke-width: 1; } .chart .axis { stroke: var(--soft); stroke-width: 1; }
.chart path { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
"""


class Series(NamedTuple):
    """A line: its name, its points with ascending x, and the number of its colour."""

    name: str
    points: Sequence[Point]
    colour: int = 0


@dataclass(frozen=True)
class _Frame:
    """The area of the data, in units of the picture, and what it shows."""

    right: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]
    is_log: bool

    def across(self, x: float) -> float:
        low, high = self.x
        return _LEFT + (self.right - _LEFT) * (x - low) / (high - low)

    def down(self, y: float) -> float:
        low, high = (math.log10(value) for value in self.y) if self.is_log else self.y
        share = ((math.log10(y) if self.is_log else y) - low) / (high - low)
        return self.bottom - (self.bottom - _TOP) * share


def line_chart(
    title: str,
    x_title: str,
    series: Sequence[Series],
    is_log: bool = False,
    marks: bool = False,
    most: float = math.inf,
) -> str:
    """Returns a figure with a caption; the empty string where no series has a point.

    Args:
        title: What is drawn, with its unit.
        x_title: The same of the horizontal axis.
        series: Lines, of which the first is drawn on top.
        is_log: The vertical axis is logarithmic where all values are above 0.
        marks: Draw points alone, without lines between them.
        most: The largest value that there can be; the vertical axis ends there.
    """
    shown = [one for one in series if one.points]
    if not shown:
        return ""
    named = [one.name for one in shown if one.name]
    height = max(HEIGHT, _TOP + _BOTTOM + _LABEL_GAP * len(named))
    widest = max((min(len(name), _LONGEST) for name in named), default=-2)
    right = WIDTH - 16 - (_LETTER * widest + 18 if named else 0)
    across, values = zip(*(point for one in shown for point in one.points), strict=True)
    is_log = is_log and min(values) > 0
    low, high = _range(values, 0.04, is_log)
    frame = _Frame(right, height - _BOTTOM, _range((0.0, *across), 0.0), (low, min(high, most)), is_log)
    parts = [*_axes(frame, x_title), *(_line(frame, one, marks) for one in reversed(shown))]
    parts += _names(frame, shown) if named else []
    words = escape(f"{title}. {'; '.join(map(_in_words, shown))}")
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{words}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg></figure>'
    )


def colour(number: int) -> str:
    """Returns the style of the colour of a series."""
    return f"var(--s{number % NUM_COLOURS})"


def _range(values: Sequence[float], margin: float, is_log: bool = False) -> tuple[float, float]:
    """Returns a range that shows all values, with a share of it as margin on both sides, but none below 0 that has no value."""
    low, high = min(values), max(values)
    if is_log:
        least, greatest = math.log10(low), math.log10(high)
        wider = margin * max(greatest - least, 0.02) if high > low else 0.18
        return 10 ** max(least - wider, LOWEST_POWER), 10 ** min(greatest + wider, HIGHEST_POWER)
    wider = margin * (high - low) if high > low else abs(high) * 0.1 or 1
    return low - wider if low < 0 else max(0.0, low - wider), high + wider


def _axes(frame: _Frame, x_title: str) -> list[str]:
    """Draws the grid, its numbers and the title of the horizontal axis."""
    parts = []
    for value in (log_ticks if frame.is_log else ticks)(*frame.y):
        y = f"{frame.down(value):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{frame.right:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y}" dy="0.35em" text-anchor="end">{number_text(value)}</text>')
    bottom = f"{frame.bottom:.1f}"
    for value in ticks(*frame.x, most=8):
        x = f"{frame.across(value):.1f}"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{frame.bottom + 4:.1f}"/>')
        parts.append(f'<text x="{x}" y="{frame.bottom + 17:.1f}" text-anchor="middle">{number_text(value)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{frame.right:.1f}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_LEFT + frame.right) / 2
    parts.append(f'<text x="{middle:.1f}" y="{frame.bottom + 35:.1f}" text-anchor="middle">{escape(x_title)}</text>')
    return parts


def _line(frame: _Frame, one: Series, marks: bool) -> str:
    """Draws a series: a path, or points where there are few; its name appears where the pointer rests."""
    places = [(frame.across(x), frame.down(y)) for x, y in _thinned(one.points, frame)]
    name = f"<title>{escape(one.name)}</title>" if one.name else ""
    path = "" if marks else f'<path d="M{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
    radius = 3.2 if marks else 2.2 if len(places) < 40 else 0
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in places if radius)
    ink, dash = colour(one.colour), _DASHES[one.colour // NUM_COLOURS % len(_DASHES)]
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<g style="stroke:{ink};fill:{ink}"{dashes}>{name}{path}{dots}</g>'


def _thinned(points: Sequence[Point], frame: _Frame) -> list[Point]:
    """Returns first, least, most and last of the points of each column of the picture: no line looks different."""
    kept: list[Point] = []
    for _, column in groupby(points, key=lambda point: round(frame.across(point[0]))):
        inside = list(column)
        ends = {inside[0], min(inside, key=lambda point: point[1]), max(inside, key=lambda point: point[1]), inside[-1]}
        kept += sorted(ends)
    return kept


def _names(frame: _Frame, shown: Sequence[Series]) -> list[str]:
    """Writes the name of each series beside its end, moved up or down where two would overlap."""
    ends = sorted((frame.down(one.points[-1][1]), one.colour, one.name) for one in shown if one.name)
    places: list[float] = []
    for wanted, _, _ in ends:
        places.append(max(wanted, places[-1] + _LABEL_GAP) if places else max(wanted, _TOP + 4))
    floor = frame.bottom
    for at in reversed(range(len(places))):
        places[at] = min(places[at], floor)
        floor = places[at] - _LABEL_GAP
    parts = []
    for place, (_, number, name) in zip(places, ends, strict=True):
        text = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        x = frame.right + 8
        parts.append(
            f'<path d="M{x:.1f},{place:.1f}h9" style="stroke:{colour(number)};stroke-width:3"/>'
            f'<text class="name" x="{x + 14:.1f}" y="{place:.1f}" dy="0.35em">{escape(text)}</text>'
        )
    return parts


def _in_words(one: Series) -> str:
    (begin, first), (end, last) = one.points[0], one.points[-1]
    name = f"{one.name}: " if one.name else ""
    return f"{name}from {number_text(first)} at {number_text(begin)} to {number_text(last)} at {number_text(end)}"
