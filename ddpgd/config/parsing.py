"""Conversion of option values, from a command line, TOML or Python, to the types of the configuration."""

import math
import os
import re
from collections.abc import Iterable
from dataclasses import Field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ddpgd.config.option import ALL, IntOrAll
from ddpgd.errors import InputError, shown

_LONGEST_NAME = 100

_MOST_EDITS = 2
"""Letters that a typing error changes, adds or leaves out, at most; one in a name of up to three letters."""


def coerce(option: Field[Any], value: Any, where: str) -> Any:
    """Converts a value to the type of an option. Text is parsed; NumPy's numbers and arrays, and paths, are accepted.

    Args:
        option: The field of `Config`.
        value: The value, as it was given.
        where: Where it was given, for the message.

    Raises:
        InputError: The value is not of that type, or not one of the choices.
    """
    kind, choices = option.metadata["kind"], option.metadata["choices"]
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if kind is int:
        return _number(value, int, where, "a whole number", "64")
    if kind is IntOrAll:
        return ALL if value == ALL else _number(value, int, where, "a whole number, or all", "64")
    if kind is float:
        return _number(value, float, where, "a finite number", "0.1")
    if kind is bool:
        if type(value).__name__ not in ("bool", "bool_"):
            raise InputError(f"{where}: {shown(value)} is not true or false")
        return bool(value)
    if kind is tuple:
        example = re.search(r"as in ([0-9,]+)", option.metadata["help"])
        assert example, "the help of an option of several numbers shows some"
        numbers = tuple(
            _number(part, int, where, "whole numbers joined by commas", example[1]) for part in _parts(value)
        )
        return () if numbers == (0,) else numbers
    if not isinstance(value, str) or (not value and value != option.metadata["bare"]):
        raise InputError(f"{where}: {shown(value)} is not a text")
    if "\0" in value:
        raise InputError(f"{where}: {shown(value)} holds a NUL character, which no name of a file can")
    if choices:
        check_choice(value, choices, where)
    return path(value) if kind is Path else value


def path(text: str) -> str:
    """Returns the name of a file or folder with `~` expanded, which shells leave in --flag=~/x; the type of all paths."""
    return os.path.expanduser(text)


def check_choice(value: Any, choices: tuple[str, ...], where: str) -> None:
    """Raises InputError unless `value` is one of `choices`."""
    if value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise InputError(f"{where}: {shown(value)} is not known; type one of {', '.join(choices)}{hint}")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns " (did you mean NAME?)" where one of `names` differs from `name` by a typing error, else an empty string."""
    name = name[:_LONGEST_NAME]
    distance, nearest = min(((_num_edits(name, other), other) for other in names), default=(_LONGEST_NAME, ""))
    limit = _MOST_EDITS if len(name.lstrip("-")) > 3 else 1
    return f" (did you mean {nearest}?)" if distance <= limit else ""


def _num_edits(left: str, right: str) -> int:
    """Returns the Levenshtein distance."""
    row = list(range(len(right) + 1))
    for number, letter in enumerate(left, start=1):
        before, row[0] = row[0], number
        for column, other in enumerate(right, start=1):
            before, row[column] = row[column], min(before + (letter != other), row[column] + 1, row[column - 1] + 1)
    return row[-1]


def _parts(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.split(",")
    return list(value) if isinstance(value, Iterable) else [value]


def _number(value: Any, kind: type, where: str, wanted: str, example: str) -> Any:
    is_number = isinstance(value, str | (Integral if kind is int else Real)) and not isinstance(value, bool)
    try:
        number = kind(value) if is_number else math.nan
        finite = math.isfinite(number)
    except (ValueError, OverflowError):
        finite = False
    if not finite:
        raise InputError(f"{where}: {shown(value)} is not {wanted}; type for example {example}")
    return number
