"""Numbers with units: read from a command line, and shown."""

import math
import re
from collections.abc import Sequence

from ddpgd.errors import InputError

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def parse_rate(text: str, name: str) -> float:
    """Bytes a second of 100Gbit, 100Gbps, 25GB: a small b is a bit, a large one a byte."""
    found = re.fullmatch(r"([0-9.]+)([kKmMgGtT]?)(bit|b|B)(?:/s|ps)?", text)
    number = positive(found[1]) if found else None
    if not found or number is None:
        raise InputError(f"--{name}: {text!r} is not a rate; type for example 100Gbit, or 25GB")
    return number * _UNITS[found[2].lower()] / (1 if found[3] == "B" else 8)


def parse_bytes(text: str, name: str) -> float:
    """Bytes of 80GB, 512MB."""
    found = re.fullmatch(r"([0-9.]+)([kKmMgGtT]?)B", text)
    number = positive(found[1]) if found else None
    if not found or number is None:
        raise InputError(f"--{name}: {text!r} is not a number of bytes; type for example 80GB")
    return number * _UNITS[found[2].lower()]


def parse_duration(text: str, name: str) -> float:
    """Seconds of 5us, 120ms."""
    found = re.fullmatch(r"([0-9.]+)(s|ms|us|ns)", text.lower())
    number = positive(found[1]) if found else None
    if not found or number is None:
        raise InputError(f"--{name}: {text!r} is not a time; type for example 5us, or 120ms")
    return number * _TIMES[found[2]]


def parse_count(text: str, name: str, example: str = "8") -> int:
    """25600000, or 25.6M. InputError names the flag, and shows an example."""
    found = re.fullmatch(r"([0-9.]+)([kmgt]?)", text.lower())
    number = positive(found[1]) if found else None
    total = number * _UNITS[found[2]] if found and number else 0.5
    if total < 1 or abs(total - round(total)) > 1e-6 * total:
        raise InputError(f"--{name}: {text!r} is not a whole number above 0; type for example {example}")
    return round(total)


def positive(text: str) -> float | None:
    """A finite number above 0; None: it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def time_text(seconds: float) -> str:
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}" if seconds < 1000 * unit else f"{seconds / unit:,.0f} {name}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0"


def plural(number: int, noun: str) -> str:
    """Returns a count with its noun: "1 rank", "2 ranks", "60,000 samples"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def enumerated(words: Sequence[str]) -> str:
    """Returns "a, b and c"."""
    return " and ".join([*[", ".join(words[:-1])] * (len(words) > 1), *words[-1:]])


def bytes_text(number: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.0f} B"
