"""The page of a sweep, and its picture: the accuracy over each option, the best run and its command, curves."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from ddpgd.config.schema import flag
from ddpgd.config.units import enumerated, plural
from ddpgd.errors import InputError
from ddpgd.results import chart, curves, dots, frame, options
from ddpgd.results.dots import Dot, dot_chart
from ddpgd.results.listing import percent
from ddpgd.results.row import Row
from ddpgd.results.sweep.outcome import Outcome, files
from ddpgd.run.atomic import write_atomically
from ddpgd.run.page import light_variables, table
from ddpgd.run.panels import RESULTS
from ddpgd.run.records import read_records
from ddpgd.training.counters import Record

_NUM_CURVES = 8


def write(outcome: Outcome, out: Path, world_size: int) -> None:
    """Writes results.csv, results.json, sweep.svg and sweep.html, each whole or not at all.

    Raises:
        OSError: One cannot be written.
    """
    panels = _panels(outcome)
    texts = files(outcome)
    if panels:
        texts["sweep.svg"] = _picture(panels)
    texts["sweep.html"] = _page(outcome, panels, world_size)
    for name, text in texts.items():
        write_atomically(out / name, [text.encode()])


def _panels(outcome: Outcome) -> dict[str, str]:
    """Returns a chart of the accuracy over each option that has several values, by their titles."""
    kind = "Validation" if outcome.is_validated else "Test"
    done = {name: (row, result) for name, row in outcome.rows.items() if (result := outcome.result(row)) is not None}
    panels = {}
    for option in outcome.plan.swept:
        runs = outcome.plan.runs
        points = [Dot(_value(runs[name][option]), 100 * result, name) for name, (_, result) in done.items()]
        if len({point.value for point in points}) > 1:
            title = f"{kind} accuracy, %, over {flag(option)}"
            panels[title] = dot_chart(title, points, most=100.0)
    return panels


def _value(value: Any) -> float | str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else options.option_text(value)


def _picture(panels: Mapping[str, str]) -> str:
    """Returns the charts below each other, as a file that needs no page."""
    height, parts = chart.HEIGHT + 12, []
    for number, (title, svg) in enumerate(panels.items()):
        placed = svg.replace("<svg ", f'<svg y="{number * height + 22}" height="{height - 28}" ', 1)
        parts.append(f'<text x="12" y="{number * height + 16}" class="title">{escape(title)}</text>{placed}')
    style = f"svg {{ {light_variables()} font-family: sans-serif; }} .title {{ font-size: 13px; font-weight: 600; }}"
    width, total = chart.WIDTH, height * len(panels)
    style += chart.STYLE.replace("height: auto;", "") + dots.STYLE
    label = escape("; ".join(panels))
    return (
        f'<svg role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" '
        f'viewBox="0 0 {width} {total}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _page(outcome: Outcome, panels: Mapping[str, str], world_size: int) -> str:
    """Returns the page of a sweep."""
    best, states = outcome.best, Counter(row.state for row in outcome.rows.values())
    counts = ", ".join(f"{count:,} {state}" for state, count in states.items())
    swept = list(map(flag, outcome.plan.swept))
    about = f"{plural(len(outcome.rows), 'run')}: {counts}; {', '.join(swept)} vary"
    notes = [f"{note[:1].upper()}{note[1:]}." for note in (*outcome.plan.notes, *outcome.notes)]
    figures = [f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in panels.items()]
    heads = outcome.heads
    words = [*range(len(swept)), len(heads) - 1]
    lines = curves.of_runs(_records(outcome), "step", RESULTS)
    parts = {
        "Best run": [
            f"<p>{escape(best)}: {_accuracies(outcome.rows[best])}.</p>",
            f"<pre><code>{escape(outcome.command(best, world_size))}</code></pre>",
        ]
        if best
        else ["<p>No run is complete.</p>"],
        "Accuracy over each option": [
            frame.grid(figures),
            frame.paragraph(dots.EXPLANATION) if figures else "",
        ],
        "Results": [table(heads, outcome.cells(), "results", left=words)],
        "Curves of the best runs": [
            frame.grid(lines),
            frame.paragraph(f"Lines are named by their values of {enumerated(swept)}.") if lines else "",
        ],
        "Base": [
            table(
                ["option", "value"],
                [(flag(n), options.option_text(v)) for n, v in outcome.plan.base.items()],
                left=(0, 1),
            )
        ],
    }
    head = [f'<h1>Sweep</h1><p class="small">{escape(about)}</p>', *frame.notes(notes)]
    return frame.page("Sweep", head, parts, dots.STYLE)


def _accuracies(row: Row) -> str:
    """Returns the accuracies of a complete run in words."""
    validation = (
        f"validation accuracy {percent(row.validation_accuracy)}, " if row.validation_accuracy is not None else ""
    )
    return f"{validation}test accuracy {percent(row.accuracy)}"


def _records(outcome: Outcome) -> dict[str, list[Record]]:
    """Returns the records of the best runs, by the values of what varies."""
    found = {}
    for name, row in list(outcome.ordered().items())[:_NUM_CURVES]:
        values = ", ".join(map(options.option_text, outcome.plan.runs[name].values()))
        with suppress(InputError):
            found[values] = read_records(row.path)
    return found
