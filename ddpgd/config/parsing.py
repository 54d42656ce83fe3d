"""What the value of an option must look like, wherever it was written."""

import difflib
import math
import os
from dataclasses import Field
from typing import Any

from ddpgd.errors import InputError, shown

_LONGEST_NAME = 100


def coerce(option: Field[Any], value: Any, where: str) -> Any:
    """`value`, from a command line (text) or TOML, as the option's type; InputError names `where` it was found."""
    kind, choices = option.metadata["kind"], option.metadata["choices"]
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if kind is int:
        return _number(value, int, where, "a whole number", "64")
    if kind is float:
        return _number(value, float, where, "a finite number", "0.1")
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{where}: {shown(value)} is not true or false")
        return value
    if kind is tuple:
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        widths = tuple(_number(part, int, where, "widths joined by commas", "512,512") for part in parts)
        return () if widths == (0,) else widths
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: {shown(value)} is not a text")
    if "\0" in value:
        raise InputError(f"{where}: {shown(value)} holds a NUL character, which no name of a file can")
    if choices and value not in choices:
        raise InputError(
            f"{where}: {shown(value)} is not known; type one of {', '.join(choices)}{did_you_mean(value, choices)}"
        )
    return value


def _number(value: Any, kind: type, where: str, wanted: str, example: str) -> Any:
    is_number = isinstance(value, str | int | kind) and not isinstance(value, bool)
    try:
        number = kind(value) if is_number else math.nan
        finite = math.isfinite(number)
    except (ValueError, OverflowError):
        finite = False
    if not finite:
        raise InputError(f"{where}: {shown(value)} is not {wanted}; type for example {example}")
    return number


def did_you_mean(name: str, names: tuple[str, ...]) -> str:
    """ " (did you mean NAME?)", where one of `names` is near."""
    matches = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""
