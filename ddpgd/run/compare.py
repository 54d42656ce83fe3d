"""Compare two runs: find the first logged step, and the first tensor, at which their params differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpgd.config.schema import OPTIONS, flag
from ddpgd.config.toml_file import read_toml
from ddpgd.errors import InputError
from ddpgd.run.records import read_records
from ddpgd.training.counters import Record


@dataclass(frozen=True)
class Difference:
    """The first difference between two runs.

    Attributes:
        step: The first logged step at which the params differ.
        tensors: The names of those that differ there.
        last_equal: The last logged step before it, at which all are equal; 0: there is none.
    """

    step: int
    tensors: list[str]
    last_equal: int


def lines(parsed: Mapping[str, Any]) -> Iterator[str]:
    """Yields the result of comparing two runs, in a line or two. InputError: as `compare`."""
    first, second = map(Path, parsed["runs"])
    num_steps, difference = compare(first, second)
    if options := differing_options(first, second):
        yield f"configurations differ: {', '.join(map(flag, options))}"
    if difference is None:
        yield f"equal params, bit for bit, at all {num_steps} logged steps that both runs have"
    else:
        yield (
            f"params differ from logged step {difference.step} on (equal at {difference.last_equal}), "
            f"first in {difference.tensors[0]}; in all: {', '.join(difference.tensors)}"
        )


def compare(first: Path, second: Path) -> tuple[int, Difference | None]:
    """Returns the number of steps that both runs logged, and their first difference, if any.

    Raises:
        InputError: a folder holds no records with hashes, or the runs have no logged step in common.
    """
    left, right = _by_step(first), _by_step(second)
    common = sorted(left.keys() & right.keys())
    if not common:
        raise InputError(f"{first} and {second} have no logged step in common; train both with the same --log-every")
    last_equal = 0
    for step in common:
        if left[step]["params_hash"] != right[step]["params_hash"]:
            return len(common), Difference(step, _differing(left[step], right[step]), last_equal)
        last_equal = step
    return len(common), None


def differing_options(first: Path, second: Path) -> list[str]:
    """Returns the names of options that define the weights and differ between two runs' config.toml files."""
    tables = []
    for folder in (first, second):
        try:
            tables.append(read_toml(str(folder / "config.toml")))
        except InputError:
            return []
    left, right = tables
    fixed = [name for name, option in OPTIONS.items() if option.metadata["fixed"] or name in ("epochs", "steps")]
    return [name for name in fixed if left.get(name) != right.get(name)]


def _by_step(folder: Path) -> dict[int, Record]:
    records = read_records(folder)
    if not all({"params_hash", "layer_hashes"} <= record.keys() for record in records):
        raise InputError(f"{folder}: its records hold no hashes of params; compare runs of this version of ddpgd")
    return {record["step"]: record for record in records}


def _differing(left: Record, right: Record) -> list[str]:
    ours, theirs = left["layer_hashes"], right["layer_hashes"]
    return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)] or ["a tensor without a hash"]
