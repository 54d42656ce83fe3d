"""Converters of command-line arguments that measuring programs share, and a parser that refuses in one line."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from ddpgd.errors import InputError

Number = TypeVar("Number", int, float)
Name = TypeVar("Name", str, int)


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises an InputError of one line where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message.removeprefix("argument "))


def positive(kind: Callable[[str], Number]) -> Callable[[str], Number]:
    """Returns a converter of text to a number above 0 and below a million; `kind` is int or float."""

    def convert(text: str) -> Number:
        try:
            number = kind(text)
        except ValueError:
            number = kind("0")
        if not 0 < number < 1e6:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
        return number

    return convert


def share(text: str) -> float:
    """Converts text to a number between 0 and 1, both excluded."""
    number = positive(float)(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return number


def numbers(text: str) -> list[int]:
    """Converts a list such as "1,2,4" to sorted numbers above 0."""
    return sorted({positive(int)(word) for word in text.split(",")})


def layouts(text: str) -> list[str]:
    """Converts a list such as "1x1,2x1", tensor x pipeline parallel ranks, to its words."""
    for word in text.split(","):
        if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", word):
            raise argparse.ArgumentTypeError(f"{word!r} is not tensor x pipeline parallel ranks, as in 2x1")
    return list(dict.fromkeys(text.split(",")))


def some_of(known: Sequence[Name]) -> Callable[[str], list[Name]]:
    """Returns a converter of a comma-separated list to those of `known`, in their order."""

    def convert(text: str) -> list[Name]:
        asked = text.split(",")
        unknown = [word for word in asked if word not in map(str, known)]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(map(str, known))}")
        return [name for name in known if str(name) in asked]

    return convert
