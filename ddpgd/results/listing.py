"""`ddpgd runs`: one line for each run of a folder."""

import csv
import io
import json
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from ddpgd.config.parsing import path
from ddpgd.errors import InputError, one_line
from ddpgd.results.row import Row, is_run, is_sweep, read_row
from ddpgd.run.progress import decimals

WORK_OPTIONS = ()
"""Options of the configuration that are flags of `runs`."""

_LONGEST_REASON = 100


class Column(NamedTuple):
    """A column of the listing: how a row's value is shown; None, where a value is not known, is shown as "-"."""

    title: str
    text: Callable[[Row], Any]
    is_number: bool = True


COLUMNS = (
    Column("name", lambda row: row.name, is_number=False),
    Column("when", lambda row: row.started, is_number=False),
    Column("hidden", lambda row: row.hidden, is_number=False),
    Column("optimizer", lambda row: row.optimizer, is_number=False),
    Column("lr", lambda row: None if row.lr is None else f"{row.lr:.4g}"),
    Column("ranks", lambda row: row.world_size),
    Column("steps", lambda row: None if row.steps is None else f"{row.steps:,}"),
    Column("validation", lambda row: percent(row.validation_accuracy)),
    Column("accuracy", lambda row: percent(row.accuracy)),
    Column("loss", lambda row: None if row.loss is None else decimals(row.loss)),
    Column("seconds", lambda row: None if row.seconds is None else f"{row.seconds:,.1f}"),
    Column("state", lambda row: row.state, is_number=False),
)

SORTS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row.name,
    "when": lambda row: row.started,
    "accuracy": lambda row: None if row.accuracy is None else -row.accuracy,
    "validation": lambda row: None if row.validation_accuracy is None else -row.validation_accuracy,
    "loss": lambda row: row.loss,
    "steps": lambda row: None if row.steps is None else -row.steps,
    "time": lambda row: row.seconds,
}
"""Keys by the values of --sort: the best, the longest and the quickest first; rows without a value last."""


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd runs`."""
    parser.add_argument(
        "folders", metavar="FOLDER", nargs="*", type=path, help="folders of runs, or runs (default: runs)"
    )
    parser.add_argument("--sort", choices=tuple(SORTS), default="when", help="order of the lines (default: when)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, with all figures unrounded")
    form.add_argument("--csv", action="store_true", help="print CSV, likewise")


def lines(parsed: Mapping[str, Any]) -> list[str]:
    """Returns the listing that the flags ask for.

    Raises:
        InputError: A folder is not there, or cannot be read.
    """
    rows = sorted((read_row(run) for run in find_runs(parsed["folders"] or ["runs"])), key=lambda row: row.name)
    key = SORTS[parsed["sort"]]
    rows.sort(key=lambda row: ((value := key(row)) is None, value))
    if parsed.get("json"):
        return [json.dumps([_plain(row) for row in rows], indent=2)]
    if parsed.get("csv"):
        return _as_csv([_plain(row) for row in rows])
    return table(rows) if rows else [f"no runs in {', '.join(parsed['folders'] or ['runs'])}"]


def find_runs(folders: Sequence[str]) -> list[Path]:
    """Returns those of `folders` that are runs, and the runs directly in the others, or in the sweeps that they are, each once.

    Raises:
        InputError: A folder is not there, or cannot be read.
    """
    found: dict[Path, None] = {}
    for name in folders:
        folder = Path(name)
        try:
            inside = [] if is_run(folder) else sorted((folder / "runs" if is_sweep(folder) else folder).iterdir())
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{name}: no folder of runs: {why}; name one, as in ddpgd runs FOLDER") from None
        found |= dict.fromkeys([folder] if is_run(folder) else filter(is_run, inside))
    return list(found)


def table(rows: Sequence[Row]) -> list[str]:
    """Returns a heading and a line for each row, in aligned columns; of "validation" only where a run has it."""
    columns = [one for one in COLUMNS if one.title != "validation" or any(row.validation_accuracy for row in rows)]
    cells = [[column.title for column in columns]]
    cells += [[dash(column.text(row)) for column in columns] for row in rows]
    heads, *lines = aligned(cells, [column.is_number for column in columns])
    reasons = (f": {row.reason}" if row.reason else "" for row in rows)
    return [heads, *(line + shortened(reason) for line, reason in zip(lines, reasons, strict=True))]


def aligned(cells: Sequence[Sequence[str]], is_number: Sequence[bool]) -> list[str]:
    """Returns rows of cells as lines whose columns are aligned, those of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [">" if number else "<" for number in is_number]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in cells
    ]


def percent(share: float | None) -> str | None:
    """Returns an accuracy as in "98.21 %"."""
    return None if share is None else f"{100 * share:.2f} %"


def dash(value: Any) -> str:
    """Returns the text of a cell, in one printable line."""
    return "-" if value is None else one_line(str(value))


def shortened(text: str) -> str:
    """Returns a reason as it is shown in a terminal."""
    text = one_line(text)
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."


def _plain(row: Row) -> dict[str, Any]:
    return {"name": row.name, **asdict(row), "path": str(row.path)}


def _as_csv(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["name", *(field.name for field in fields(Row))], lineterminator="\n")
    writer.writeheader()
    writer.writerows(tables)
    return text.getvalue().removesuffix("\n").split("\n")
