"""Records of a run: metrics.jsonl, one JSON object a line, validated when read."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddpgd.errors import InputError
from ddpgd.run import strict_json
from ddpgd.run.atomic import write_atomically
from ddpgd.training.counters import Record

_MOST_STEPS = 2**53
_MOST_ENTRIES = 10_000
_LONGEST_TEXT = 200
_LARGEST = 2**63

LAYER_FIGURES = (
    "layer_grad_norms",
    "layer_param_norms",
    "layer_update_ratios",
    "layer_dead_shares",
    "layer_saturated_shares",
)
"""Fields of records with a number for each layer; the last two for each hidden layer."""


class RecordFile:
    """metrics.jsonl of a run folder: one JSON object a line, readable at any moment."""

    def __init__(self, folder: Path, step: int) -> None:
        """Opens it for what comes after `step`; later records, of a run that was cut short, are dropped."""
        path = folder / "metrics.jsonl"
        kept = [record for record in read_records(folder) if record["step"] <= step] if path.exists() else []
        write_atomically(path, (f"{json.dumps(record)}\n".encode() for record in kept))
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def record(self, record: Record) -> None:
        """Appends a record. OSError, with the file's name: it cannot be written."""
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def close(self) -> None:
        """Closes the file. What could not be written has been told by `record`."""
        try:
            self._file.close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def read_records(folder: Path) -> list[Record]:
    """Returns all records of a run folder, but for a last line that was cut off.

    Raises:
        InputError: the folder has none, or a line is not a record.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{folder}: not a run folder: metrics.jsonl: {why}") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(strict_json.parse(line.decode())))
        except ValueError as error:
            raise InputError(
                f"{path}: line {number} is not a record of ddpgd ({error}); mend or remove that line"
            ) from None
    return records


def read_last(folder: Path, num_bytes: int = 1 << 16) -> list[Record]:
    """Returns the whole records within the last bytes of metrics.jsonl, oldest first; lines that are none are left out."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - num_bytes)
            file.seek(begin)
            lines = file.read(num_bytes).split(b"\n")[bool(begin) : -1]
    except (OSError, ValueError):
        return []
    records = []
    for line in lines:
        with suppress(ValueError):
            records.append(_record(strict_json.parse(line.decode())))
    return records


def _record(value: Any) -> Record:
    """Returns a line of metrics.jsonl. ValueError: it is none. All but hashes and lists are numbers, or null."""
    checks = {"step": _is_step, "params_hash": _is_text, "layer_hashes": _is_table_of_texts}
    checks |= dict.fromkeys(LAYER_FIGURES, _is_list_of_numbers)
    if not isinstance(value, dict) or "step" not in value:
        raise ValueError("it has no step")
    for name, item in value.items():
        if not _is_text(name) or not checks.get(name, _is_number)(item):
            raise ValueError(f"the value of {name[:50]!r} makes no sense")
    return value


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_STEPS


def _is_number(value: Any) -> bool:
    return value is None or type(value) is float or (type(value) is int and abs(value) < _LARGEST)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_table_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= _MOST_ENTRIES and all(map(_is_text, (*value, *value.values())))


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_ENTRIES and all(map(_is_number, value))
