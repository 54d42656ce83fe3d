"""Fields of the configuration: what a flag, its help and its value in TOML are made from."""

from dataclasses import field
from typing import Any

ALL = "all"


class IntOrAll:
    """The kind of an option that counts samples: a whole number, or `ALL` of them."""


def option(
    default: Any,
    group: str,
    text: str,
    kind: type = str,
    choices: tuple[str, ...] = (),
    fixed: bool = False,
    bare: str | None = None,
) -> Any:
    """Makes a field with the metadata of its flag.

    Of the kind `Path` is the name of a file or folder: text, in which `~` is expanded. `fixed`: the option defines the
    weights, so a resumed run must keep it. `bare`: the value of a flag without an argument; None: it needs one.
    """
    metadata = {"group": group, "help": text, "kind": kind, "choices": choices, "fixed": fixed, "bare": bare}
    return field(default=default, metadata=metadata)


def fixed_option(default: Any, group: str, text: str, kind: type = str, choices: tuple[str, ...] = ()) -> Any:
    """Makes a field that defines the weights."""
    return option(default, group, text, kind, choices, fixed=True)
