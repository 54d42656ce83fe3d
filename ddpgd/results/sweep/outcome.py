"""Results of a sweep: rows in the order of their results, as text, CSV, JSON, a picture and a page."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ddpgd.config.schema import flag
from ddpgd.config.units import enumerated, plural
from ddpgd.errors import InputError
from ddpgd.results import chart, curves, dots, frame, options
from ddpgd.results.dots import Dot, dot_chart
from ddpgd.results.listing import aligned, percent
from ddpgd.results.row import COMPLETE, PENDING, Row
from ddpgd.results.sweep.plan import Plan
from ddpgd.run.atomic import write_atomically
from ddpgd.run.page import light_variables, table
from ddpgd.run.progress import decimals
from ddpgd.run.records import read_records
from ddpgd.training.counters import Record

ON_TEST_SET = (
    "the best run is chosen by accuracy on the test samples, which is then no estimate for new samples; type validation = 5000 "
    "in the file to choose by samples held out of training"
)
_NUM_CURVES = 8


@dataclass(frozen=True)
class Outcome:
    """The rows of a sweep's runs, by their names.

    Attributes:
        plan: The sweep.
        rows: What came of each run.
    """

    plan: Plan
    rows: Mapping[str, Row]

    @property
    def is_validated(self) -> bool:
        """True if a run has validation samples, by which runs are then compared."""
        return bool(self.plan.base.get("validation")) or "validation" in self.plan.swept

    def result(self, row: Row) -> float | None:
        """Returns the accuracy by which a complete run is compared; None: it has none, or is not complete."""
        if row.state != COMPLETE:
            return None
        return row.validation_accuracy if self.is_validated else row.accuracy

    def ordered(self) -> dict[str, Row]:
        """Returns the rows, the best result first; those without one last."""

        def key(name: str) -> tuple[bool, float, str]:
            result = self.result(self.rows[name])
            return result is None, -(result or 0.0), name

        return {name: self.rows[name] for name in sorted(self.rows, key=key)}

    @property
    def best(self) -> str:
        """The name of the best run; empty: none is complete."""
        name, row = next(iter(self.ordered().items()))
        return name if self.result(row) is not None else ""

    def command(self, name: str, world_size: int) -> str:
        """Returns the command that trains a run alone."""
        return options.typed(self.plan.train_options(name), world_size)


def write(outcome: Outcome, out: Path, world_size: int) -> None:
    """Writes results.csv, results.json, sweep.svg and sweep.html, each whole or not at all.

    Raises:
        OSError: One cannot be written.
    """
    tables = list(_tables(outcome))
    about = {"chosen_by": _chosen_by(outcome), "best": outcome.best or None, "runs": tables}
    files = {"results.json": json.dumps(about, indent=2) + "\n", "results.csv": _as_csv(tables)}
    if panels := _panels(outcome):
        files["sweep.svg"] = _picture(panels)
    files["sweep.html"] = _page(outcome, panels, world_size)
    for name, text in files.items():
        write_atomically(out / name, [text.encode()])


def lines(outcome: Outcome) -> list[str]:
    """Returns the rows as an aligned table for a terminal."""
    heads = _heads(outcome)
    return aligned(
        [heads, *_cells(outcome)], [len(outcome.plan.swept) <= at < len(heads) - 1 for at in range(len(heads))]
    )


def _heads(outcome: Outcome) -> list[str]:
    validation = ["validation"] if outcome.is_validated else []
    return [*outcome.plan.swept, *validation, "accuracy", "loss", "steps", "seconds", "state"]


def _cells(outcome: Outcome) -> Iterator[list[str]]:
    """Yields the cells of each row, as text."""
    for name, row in outcome.ordered().items():
        validation = [percent(row.validation_accuracy)] if outcome.is_validated else []
        found = [
            *validation,
            percent(row.accuracy),
            None if row.loss is None else decimals(row.loss),
            None if row.steps is None else f"{row.steps:,}",
            None if row.seconds is None else f"{row.seconds:,.1f}",
        ]
        state = f"{row.state}: {row.reason[:80]}" if row.reason else row.state
        values = [options.option_text(outcome.plan.runs[name][option]) for option in outcome.plan.swept]
        yield [*values, *("-" if cell is None else cell for cell in found), state]


def _tables(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for name, row in outcome.ordered().items():
        yield {
            "name": name,
            **{option: outcome.plan.runs[name][option] for option in outcome.plan.swept},
            "validation_accuracy": row.validation_accuracy,
            "test_accuracy": row.accuracy,
            "test_loss_mean": row.loss,
            "steps": row.steps,
            "state": row.state,
            "reason": row.reason,
            "train_s": row.seconds,
        }


def _as_csv(tables: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(tables[0]), lineterminator="\n")
    writer.writeheader()
    for one in tables:
        writer.writerow({name: options.option_text(v) if isinstance(v, tuple) else v for name, v in one.items()})
    return text.getvalue()


def _chosen_by(outcome: Outcome) -> str:
    return "validation_accuracy" if outcome.is_validated else "test_accuracy"


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
            panels[title] = dot_chart(title, points)
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
    num_done = sum(row.state != PENDING for row in outcome.rows.values())
    best = outcome.best
    about = f"{plural(len(outcome.rows), 'run')}, {num_done:,} begun; {', '.join(map(flag, outcome.plan.swept))} vary"
    notes = [] if outcome.is_validated else [f"{ON_TEST_SET[:1].upper()}{ON_TEST_SET[1:]}."]
    figures = [f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in panels.items()]
    heads = _heads(outcome)
    words = [*range(len(outcome.plan.swept)), len(heads) - 1]
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
        "Results": [table(heads, _cells(outcome), "results", left=words)],
        "Curves of the best runs": [
            frame.grid(curves.of_runs(_records(outcome), "step", curves.RESULTS)),
            frame.paragraph(f"Lines are named by their values of {enumerated(list(map(flag, outcome.plan.swept)))}."),
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
    validation = f"validation accuracy {percent(row.validation_accuracy)}, " if row.validation_accuracy else ""
    return f"{validation}test accuracy {percent(row.accuracy)}"


def _records(outcome: Outcome) -> dict[str, list[Record]]:
    """Returns the records of the best runs, by the values of what varies."""
    found = {}
    for name, row in list(outcome.ordered().items())[:_NUM_CURVES]:
        values = ", ".join(map(options.option_text, outcome.plan.runs[name].values()))
        with suppress(InputError):
            found[values] = read_records(row.path)
    return found
