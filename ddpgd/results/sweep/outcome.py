"""Results of a sweep: rows in the order of their results, as text, CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ddpgd.config.schema import flag
from ddpgd.config.units import plural
from ddpgd.results import options
from ddpgd.results.listing import COLUMNS, Column, aligned, dash, shortened
from ddpgd.results.row import COMPLETE, Row
from ddpgd.results.sweep.plan import Plan

_ON_TEST_SET = (
    "the best run is chosen by accuracy on the test samples, which is then no estimate for new samples; type validation = 5000 "
    "in the file to choose by samples held out of training"
)
_FIGURES = ("validation", "accuracy", "loss", "steps", "seconds")
"""Titles of the columns of `ddpgd runs` that tell what came of a run."""


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
        return any(self.plan.options(name).get("validation") for name in self.plan.runs)

    @property
    def notes(self) -> list[str]:
        """Sentences on what the comparison of the runs does not say."""
        if not self.is_validated:
            return [_ON_TEST_SET]
        without = [name for name in self.plan.runs if not self.plan.options(name).get("validation")]
        told = f"{plural(len(without), 'run')} without validation samples cannot be compared with the others: "
        return [told + ", ".join(without[:1] + ["..."] * (len(without) > 1))] if without else []

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

    @property
    def heads(self) -> list[str]:
        """Titles of the columns of the table: options as flags, figures, the state."""
        return [*map(flag, self.plan.swept), *(column.title for column in self._columns()), "state"]

    def cells(self) -> Iterator[list[str]]:
        """Yields the cells of each row below `heads`, as text, in order."""
        for name, row in self.ordered().items():
            values = [options.option_text(self.plan.runs[name][option]) for option in self.plan.swept]
            state = f"{row.state}: {row.reason}" if row.reason else row.state
            yield [*values, *(dash(column.text(row)) for column in self._columns()), state]

    def _columns(self) -> list[Column]:
        wanted = [title for title in _FIGURES if title != "validation" or self.is_validated]
        return [column for column in COLUMNS if column.title in wanted]


def lines(outcome: Outcome) -> list[str]:
    """Returns the rows as an aligned table for a terminal."""
    heads = outcome.heads
    is_number = [len(outcome.plan.swept) <= at < len(heads) - 1 for at in range(len(heads))]
    return aligned([heads, *([*cells[:-1], shortened(cells[-1])] for cells in outcome.cells())], is_number)


def files(outcome: Outcome) -> dict[str, str]:
    """Returns results.json and results.csv, by their names."""
    tables = [_table(outcome, name, row) for name, row in outcome.ordered().items()]
    chosen_by = "validation_accuracy" if outcome.is_validated else "test_accuracy"
    about = {"chosen_by": chosen_by, "best": outcome.best or None, "runs": tables}
    return {"results.json": json.dumps(about, indent=2) + "\n", "results.csv": _as_csv(tables)}


def _table(outcome: Outcome, name: str, row: Row) -> dict[str, Any]:
    """Returns all that is known of a run; no figure is called as an option is."""
    return {
        "name": name,
        **{option: outcome.plan.runs[name][option] for option in outcome.plan.swept},
        "validation_accuracy": row.validation_accuracy,
        "test_accuracy": row.accuracy,
        "test_loss_mean": row.loss,
        "steps_done": row.steps,
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
