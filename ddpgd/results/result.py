"""All that a run left in its folder, as far as it can be read."""

from dataclasses import dataclass, field
from pathlib import Path

from ddpgd.config.schema import Config, from_table
from ddpgd.config.toml_file import read_toml
from ddpgd.errors import InputError
from ddpgd.results.row import Row, is_run, read_row
from ddpgd.run import checkpoint_search
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.records import read_records
from ddpgd.run.summary import Summary, read_summary
from ddpgd.training.counters import Record


@dataclass(frozen=True)
class Result:
    """A run: its row, its files, and a sentence on each that is missing or cannot be read.

    Attributes:
        row: The run in short.
        records: Lines of metrics.jsonl.
        summary: summary.json of a complete run.
        config: config.toml, or what the checkpoint says.
        saved: The best checkpoint where there is one, else the newest whole one.
        notes: Sentences on what is not there.
    """

    row: Row
    records: list[Record]
    summary: Summary | None
    config: Config | None
    saved: Checkpoint | None
    notes: list[str] = field(default_factory=list)

    @property
    def world_size(self) -> int:
        """The number of ranks; 1 where nothing tells."""
        if self.summary:
            return self.summary["world_size"]
        return int(self.saved.facts.get("world_size", 1)) if self.saved else 1


def read_result(folder: Path, with_checkpoint: bool = True) -> Result:
    """Reads a run folder.

    Raises:
        InputError: It is none, or its records are missing or damaged.
    """
    if not is_run(folder):
        raise InputError(f"{folder}: not a run folder; name one, as in ddpgd report runs/first")
    row, records, notes = read_row(folder), read_records(folder), []
    summary, config, saved = None, None, None
    if row.reason:
        notes.append(row.reason)
    if (folder / "summary.json").exists():
        try:
            summary = read_summary(folder)
        except InputError as error:
            notes.append(str(error))
    if with_checkpoint:
        saved = _checkpoint(folder, notes)
    try:
        config = from_table(read_toml(str(folder / "config.toml")))
    except InputError as error:
        notes.append(str(error).removeprefix("--config "))
        config = from_table(saved.config) if saved else None
    return Result(row, records, summary, config, saved, list(dict.fromkeys(notes)))


def _checkpoint(folder: Path, notes: list[str]) -> Checkpoint | None:
    """Returns the best checkpoint of a run, else the newest whole one; None: there is none, and `notes` says so."""
    try:
        return checkpoint_search.find_best(folder, notes.append)[1]
    except InputError as error:
        notes.append(str(error))
    return None
