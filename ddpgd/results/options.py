"""The options of a run in words: those that differ from the defaults, and the command that repeats it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ddpgd.config.schema import OPTIONS, Config, flag, from_table, resolve, to_table

OF_ONE_START = ("run_dir", "resume", "quiet", "max_time")
"""Options that a repetition does not want."""


def changed(config: Config, world_size: int) -> dict[str, Any]:
    """Returns the options without which a resolved configuration would be another one."""
    table = to_table(config)
    found = {}
    for name in table.keys() - set(OF_ONE_START):
        others = from_table({other: value for other, value in table.items() if other != name})
        if resolve(others, world_size) != config:
            found[name] = table[name]
    return {name: found[name] for name in OPTIONS if name in found}


def differing(configs: Sequence[Config | None]) -> list[str]:
    """Returns the names of the options in which configurations differ; those that are not known do not count."""
    tables = [to_table(config) for config in configs if config]
    return [
        name
        for name in OPTIONS
        if name not in OF_ONE_START and any(table.get(name) != tables[0].get(name) for table in tables)
    ]


def command(config: Config, world_size: int) -> str:
    """Returns the command that trains the same network again.

    >>> command(resolve(Config(hidden=(32, 16), lr=0.05, error_feedback=True, wire="int8"), 2), 2)
    'mpirun -n 2 ddpgd train --hidden 32,16 --lr 0.05 --wire int8 --error-feedback'
    """
    return typed(changed(config, world_size), world_size)


def typed(given: Mapping[str, Any], world_size: int) -> str:
    """Returns the command that trains with the options that are `given`, by name.

    >>> typed({"lr": 0.1, "augment": "affine"}, 2)
    'mpirun -n 2 ddpgd train --augment affine --lr 0.1'
    """
    words = ["mpirun", "-n", str(world_size)] if world_size > 1 and given.get("transport") != "threads" else []
    words += ["ddpgd", "train"]
    for name in (name for name in OPTIONS if given.get(name, False) is not False):
        words += [flag(name)] if given[name] is True else [flag(name), option_text(given[name])]
    return shlex.join(words)


def option_text(value: Any) -> str:
    """Returns a value as a flag takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "0"
    return (
        "-"
        if value is None
        else f"{value:g}"
        if isinstance(value, float) and float(f"{value:g}") == value
        else str(value)
    )
