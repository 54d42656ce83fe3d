"""Results as they stand in git: for each case the number of values, median, least and most; raw samples are left out."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

DIGITS = 5
"""Significant digits of a written number."""


class Spread(TypedDict):
    """Values of several repetitions."""

    n: int
    median: float
    min: float
    max: float


def spread(values: Sequence[float]) -> Spread:
    """Returns number, median, least and most of one or more values."""
    return {"n": len(values), "median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Returns the spread of ratios, each within a repetition."""
    return spread([one / other for one, other in zip(numerators, denominators, strict=True)])


def between(values: Spread, form: str, factor: float = 1.0) -> str:
    """Returns "2.1 (2.0 to 2.3)"."""
    middle, least, most = (format(factor * values[name], form) for name in ("median", "min", "max"))
    return f"{middle} ({least} to {most})"


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Writes a JSON file, a record a line; a reader finds the old file or the new one, whole."""
    lines = []
    for name, value in found.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            records = ",\n".join(f"  {json.dumps(_rounded(one))}" for one in value)
            lines.append(f" {json.dumps(name)}: [\n{records}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(_rounded(value))}")
    beside = path.with_name(f".{path.name}")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(beside, path)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
