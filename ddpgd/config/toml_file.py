"""Options in a TOML file."""

import tomllib
from pathlib import Path
from typing import Any

from ddpgd.config.parsing import coerce, did_you_mean
from ddpgd.config.schema import OPTIONS
from ddpgd.errors import InputError, shown

_LARGEST_FILE = 1_000_000


def read_toml(path: str) -> dict[str, Any]:
    """The options in a TOML file, each coerced. InputError: unreadable, not TOML, unknown name, or wrong value."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        table = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, ValueError) else "nested too deeply"
        raise InputError(f"--config {path}: not TOML: {why}") from None
    if len(content) > _LARGEST_FILE:
        raise InputError(f"--config {path}: longer than {_LARGEST_FILE} bytes; name a file with the options of a run")
    for name in table:
        if name not in OPTIONS:
            near = did_you_mean(name, tuple(OPTIONS))
            raise InputError(
                f"--config {path}: there is no option {shown(name)}{near}; `ddpgd train --help` lists them"
            )
    return {name: coerce(OPTIONS[name], value, f"--config {path}: {name}") for name, value in table.items()}
