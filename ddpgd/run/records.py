"""What a run tells of itself: a record a line in metrics.jsonl, and summary.json."""

import json
from pathlib import Path

from ddpgd.errors import InputError
from ddpgd.run.atomic import write_atomically
from ddpgd.training.counters import Record


class RecordFile:
    """metrics.jsonl of a run folder: one JSON object a line, readable at any moment."""

    def __init__(self, folder: Path, step: int) -> None:
        """Opens it for what comes after `step`; later records, of a run that was cut short, are dropped."""
        path = folder / "metrics.jsonl"
        kept = [record for record in read_records(folder) if record["step"] <= step] if path.exists() else []
        write_atomically(path, (f"{json.dumps(record)}\n".encode() for record in kept))
        self._file = path.open("a", encoding="utf-8")

    def record(self, record: Record) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_records(folder: Path) -> list[Record]:
    """All records of a run folder but a last line that was cut off. InputError: it has none, or a line is damaged."""
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        records = [json.loads(line) for line in lines]
    except OSError as error:
        raise InputError(f"{folder}: not a run folder: metrics.jsonl: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path}: damaged: a line is not a record; mend or remove it") from None
    if not all(isinstance(record, dict) and "step" in record for record in records):
        raise InputError(f"{path}: damaged: a line is not a record of ddpgd; mend or remove it")
    return records


def write_summary(folder: Path, summary: Record) -> None:
    """summary.json: a reader sees the old one or the new one, never half."""
    write_atomically(folder / "summary.json", [f"{json.dumps(summary, indent=2)}\n".encode()])
