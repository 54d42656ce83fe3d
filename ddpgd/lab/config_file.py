"""Options of a run's configuration for a command that has some of them: others must not change what it is asked about."""

from collections.abc import Collection
from typing import Any

from ddpgd.config.schema import OPTIONS, flag, text_of
from ddpgd.config.toml_file import read_toml
from ddpgd.errors import InputError


def read_known(file: str, command: str, known: Collection[str], refused: Collection[str]) -> dict[str, Any]:
    """Returns the options in a TOML file that a command has.

    Args:
        file: The TOML file, as a run's config.toml.
        command: The command, for messages.
        known: Options that it has.
        refused: Options that it has not, but whose values, other than the defaults, would change its results.

    Raises:
        InputError: The file cannot be read, or has such a value.
    """
    table = read_toml(file)
    for name, value in table.items():
        if name in refused and value != OPTIONS[name].default:
            raise InputError(
                f"--config {file}: {name} = {text_of(value)}: ddpgd {command} has no {flag(name)}, which would change its "
                "results; name a file without it"
            )
    return {name: value for name, value in table.items() if name in known}
