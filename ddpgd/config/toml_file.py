"""Options in a TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpgd.config.parsing import coerce, did_you_mean
from ddpgd.config.schema import OPTIONS
from ddpgd.errors import InputError, shown

_LARGEST_FILE = 1_000_000


def read_toml(path: str) -> dict[str, Any]:
    """The options in a TOML file, each coerced. InputError: unreadable, not TOML, unknown name, or wrong value."""
    where = f"--config {path}"
    return coerced(read_table(path, where), where)


def read_table(path: str, where: str) -> dict[str, Any]:
    """Returns what a TOML file holds. InputError, which begins with `where`: unreadable, not TOML, or too long."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        table = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise InputError(f"{where}: cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, ValueError) else "nested too deeply"
        raise InputError(f"{where}: not TOML: {why}") from None
    if len(content) > _LARGEST_FILE:
        raise InputError(f"{where}: longer than {_LARGEST_FILE} bytes; name a file with the options of a run")
    return table


def coerced(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the options in a table as their types. InputError, which begins with `where`: unknown name, or wrong value."""
    for name in table:
        check_option(name, where)
    return {name: coerce(OPTIONS[name], value, f"{where}: {name}") for name, value in table.items()}


def check_option(name: str, where: str) -> None:
    """Raises InputError, which begins with `where`, unless there is an option of that name."""
    if name not in OPTIONS:
        near = did_you_mean(name, tuple(OPTIONS))
        raise InputError(f"{where}: there is no option {shown(name)}{near}; `ddpgd train --help` lists them")
