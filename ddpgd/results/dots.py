"""Charts of results over the values of an option: a point for each run, and the best of each value joined."""

import math
import statistics
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from ddpgd.results.chart import HEIGHT, WIDTH
from ddpgd.results.scales import log_ticks, number_text, ticks

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 544, 10, 42
_MOST_VALUES = 10
"""Numbers of which there are more lie on an axis; fewer ones, and words, side by side."""
_SHOWN = 4.0
"""Multiple of the distance from the best to the median down to which results lie within the axis."""
_LETTERS = 75
"""Letters that fit below the axis."""


class Dot(NamedTuple):
    """A run: the value of the option, the result, and the name of the run."""

    value: float | str
    result: float
    name: str


def dot_chart(title: str, dots: Sequence[Dot], most: float = math.inf) -> str:
    """Returns the SVG element, without a title; `title` is for those who do not see it.

    Dots: at least one. `most`: the largest result that there can be.
    """
    low, high = _range([dot.result for dot in dots], most)
    bottom = HEIGHT - _BOTTOM

    def down(result: float) -> float:
        return bottom - (bottom - _TOP) * max(0.0, result - low) / (high - low)

    places, labels = _axis(sorted({dot.value for dot in dots}, key=_order))
    parts = []
    for tick in ticks(low, high):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{down(tick):.1f}" y2="{down(tick):.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 8}" y="{down(tick):.1f}" dy="0.35em" text-anchor="end">{number_text(tick)}</text>'
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    for x, text in labels:
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>')
    best = {value: max(dot.result for dot in dots if dot.value == value) for value in places}
    if len(best) < _MOST_VALUES:
        line = " ".join(f"{places[value]:.1f},{down(result):.1f}" for value, result in best.items())
        parts.append(f'<path d="M{line}" class="best"/>')
    for dot in dots:
        words = escape(f"{dot.name}: {dot.result:.4g}")
        kind = "dot" if dot.result >= low else "dot below"
        parts.append(
            f'<circle class="{kind}" cx="{places[dot.value]:.1f}" cy="{down(dot.result):.1f}" r="4">'
            f"<title>{words}</title></circle>"
        )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT - 16}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


STYLE = """
.chart .dot { fill: var(--s0); fill-opacity: 0.65; stroke: var(--ground); stroke-width: 1; }
.chart .below { fill: var(--ground); stroke: var(--s0); }
.chart .best { stroke: var(--s0); stroke-opacity: 0.5; }
"""


EXPLANATION = "A point is a run; lines join the best of each value. Hollow points on the axis lie below it."


def _range(results: Sequence[float], most: float) -> tuple[float, float]:
    """Returns the range of the axis, up to `most`: all results, but for those far below the better half."""
    best, worst = max(results), min(results)
    low = max(worst, best - _SHOWN * (best - statistics.median(results)))
    margin = 0.06 * (best - low) or abs(best) * 0.1 or 1.0
    return low - margin, min(best + margin, most)


def _order(value: float | str) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, value, "")


def _axis(values: Sequence[float | str]) -> tuple[dict[float | str, float], list[tuple[float, str]]]:
    """Returns the place of each value, and the places and texts of labels."""
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) == len(values) > _MOST_VALUES:
        return _number_axis(numbers)
    distance = (_RIGHT - _LEFT) / len(values)
    places = {value: _LEFT + distance * (at + 0.5) for at, value in enumerate(values)}
    most = max(3, _LETTERS // len(values))
    texts = [value if isinstance(value, str) else number_text(value) for value in values]
    shown = [text if len(text) <= most else f"{text[: most - 1]}…" for text in texts]
    every = math.ceil(len(values) / 20)
    return places, list(zip(places.values(), shown, strict=True))[::every]


def _number_axis(numbers: Sequence[float]) -> tuple[dict[float | str, float], list[tuple[float, str]]]:
    low, high = numbers[0], numbers[-1]
    is_log = low > 0 and high / low > 30

    def across(value: float) -> float:
        low_end, high_end, at = (math.log(one) if is_log else one for one in (low, high, value))
        return _LEFT + 12 + (_RIGHT - _LEFT - 24) * (at - low_end) / (high_end - low_end)

    marks = log_ticks(low, high) if is_log else ticks(low, high)
    return {value: across(value) for value in numbers}, [(across(mark), number_text(mark)) for mark in marks]
