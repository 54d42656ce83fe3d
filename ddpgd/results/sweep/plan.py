"""The runs of a sweep, from a TOML file: a base configuration, and in its table [sweep] what varies."""

import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from typing import Any

from ddpgd.config.parsing import coerce
from ddpgd.config.schema import MUTUALLY_EXCLUSIVE, OPTIONS, Config
from ddpgd.config.toml_file import check_option, coerced, read_table
from ddpgd.config.validation import changed, check_rule_has, validate
from ddpgd.errors import InputError, shown
from ddpgd.kernels.philox import Purpose, uniforms
from ddpgd.results.options import OF_ONE_START, option_text

MOST_RUNS = 10_000
_LONGEST_NAME = 100
_SETTINGS = {"random": (1, MOST_RUNS), "random_seed": (0, 2**63)}
"""Entries of [sweep] that are no options: the least and the largest value."""
_OF_ALL_RUNS = ("transport", "ranks")
"""Options that the base may have, for the ranks of the sweep."""
_RANGE = {"low", "high", "log"}


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep.

    Attributes:
        base: Options that all runs have.
        swept: Names of those that vary, in the order of the file.
        runs: What varies, by the names of the runs' folders.
        notes: Sentences on combinations that are no runs.
    """

    base: dict[str, Any]
    swept: tuple[str, ...]
    runs: dict[str, dict[str, Any]]
    notes: tuple[str, ...] = ()

    def options(self, name: str) -> dict[str, Any]:
        """Returns the options of a run."""
        return self.base | self.runs[name]

    def train_options(self, name: str) -> dict[str, Any]:
        """Returns the options of a run alone, without those of the ranks of the sweep."""
        return {one: value for one, value in self.options(name).items() if one not in _OF_ALL_RUNS}


def read_plan(path: str) -> Plan:
    """Reads a sweep: every combination of the lists in [sweep], or, with `random = N`, N draws from lists and ranges.

    Raises:
        InputError: The file is no sweep, or one of its runs is no configuration of `ddpgd train`.
    """
    table = read_table(path, path)
    sweep = table.pop("sweep", None)
    if not isinstance(sweep, dict):
        raise InputError(f"{path}: has no table [sweep]; type for example [sweep] and below it lr = [0.01, 0.1]")
    base = coerced(table, path)
    where = f"{path}: [sweep]"
    choices = {name: _choices(name, value, where) for name, value in sweep.items() if name not in _SETTINGS}
    _check_names(base, choices, path)
    num_draws, seed = (_setting(sweep, name, where) for name in _SETTINGS)
    if num_draws is None and seed is not None:
        raise InputError(f"{where}: random_seed is for draws; type random = 20 as well, or drop it")
    combinations = _grid(choices, where) if num_draws is None else _draws(choices, num_draws, seed or 0)
    plan = Plan(base, tuple(choices), {_name(options): options for options in combinations})
    kind, total = "combinations" if num_draws is None else "draws", len(combinations)
    notes = [f"{path}: {total:,} {kind}, {len(plan.runs):,} distinct"] if len(plan.runs) < total else []
    return _without_contradictions(plan, choices, path, notes)


def _without_contradictions(plan: Plan, choices: Mapping[str, Any], path: str, notes: list[str]) -> Plan:
    """Returns a plan without the runs whose options contradict each other, if each value of each list has another run.

    Raises:
        InputError: A value has none, and so is wrong itself.
    """
    refused: dict[str, InputError] = {}
    for name in plan.runs:
        try:
            _check_run(plan.options(name), f"{path}: run {name}")
        except InputError as error:
            refused[name] = error
    kept = {name: options for name, options in plan.runs.items() if name not in refused}
    valid = {pair for options in kept.values() for pair in options.items()}
    for name, refusal in refused.items():
        listed = {pair for pair in plan.runs[name].items() if isinstance(choices[pair[0]], list)}
        if not kept or listed - valid:
            raise refusal
    if refused:
        first = next(iter(refused.values()))
        notes.append(f"{len(refused):,} of {len(plan.runs):,} combinations are left out, as this one: {first}")
    return replace(plan, runs=kept, notes=tuple(notes))


def _check_names(base: Mapping[str, Any], choices: Mapping[str, Any], path: str) -> None:
    if not choices:
        raise InputError(f"{path}: [sweep] varies no option; type for example lr = [0.01, 0.1]")
    for name in (*base, *choices):
        if name in OF_ONE_START or (name in choices and name in _OF_ALL_RUNS):
            raise InputError(f"{path}: {name}: a sweep sets it for each run; drop it")
    for name in choices:
        rivals = {name, *(rival for pair in MUTUALLY_EXCLUSIVE if name in pair for rival in pair)} & base.keys()
        if rivals:
            raise InputError(f"{path}: {name} varies in [sweep], and {min(rivals)} stands above it; drop one of them")


def _choices(name: str, value: Any, where: str) -> list[Any] | dict[str, Any]:
    """Returns the values of an option, coerced, or its range."""
    check_option(name, where)
    if isinstance(value, dict):
        return _range(name, value, f"{where}: {name}")
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {name}: {shown(value)} is not a list of values; type for example {name} = [A, B]")
    return [coerce(OPTIONS[name], one, f"{where}: {name}") for one in value]


def _range(name: str, value: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns a range, checked."""
    example = f"type for example {name} = {{ low = 0.001, high = 1.0, log = true }}"
    if OPTIONS[name].metadata["kind"] not in (int, float):
        raise InputError(f"{where}: only numbers have ranges; type a list of values")
    if not {"low", "high"} <= value.keys() <= _RANGE or type(value.get("log", False)) is not bool:
        raise InputError(f"{where}: {shown(value)} is not a range; {example}")
    low, high = (coerce(OPTIONS[name], value[end], f"{where}: {end}") for end in ("low", "high"))
    if not low < high or (value.get("log") and low <= 0):
        raise InputError(f"{where}: low must be below high, and above 0 where log = true; {example}")
    return {"low": low, "high": high, "log": value.get("log", False)}


def _setting(sweep: Mapping[str, Any], name: str, where: str) -> int | None:
    value, (lowest, highest) = sweep.get(name), _SETTINGS[name]
    if value is not None and (type(value) is not int or not lowest <= value <= highest):
        raise InputError(
            f"{where}: {name}: {shown(value)} is not a whole number from {lowest} to {highest:,}; type for example {name} = 20"
        )
    return value


def _grid(choices: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Returns every combination; the last option varies fastest."""
    for name, values in choices.items():
        if isinstance(values, dict):
            raise InputError(
                f"{where}: {name}: a range needs a number of draws; type random = 20 in [sweep], or a list"
            )
    if math.prod(map(len, choices.values())) > MOST_RUNS:
        raise InputError(f"{where}: more than {MOST_RUNS:,} combinations; type random = 50 in [sweep] to draw some")
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _draws(choices: Mapping[str, Any], count: int, seed: int) -> list[dict[str, Any]]:
    """Returns draws, each option from a stream of its own, so that other options and more draws change none."""
    streams = {name: uniforms(seed, Purpose.SWEEP, zlib.crc32(name.encode()), count) for name in choices}
    return [
        {name: _drawn(name, values, float(streams[name][number])) for name, values in choices.items()}
        for number in range(count)
    ]


def _drawn(name: str, values: list[Any] | dict[str, Any], uniform: float) -> Any:
    """Returns the value at `uniform`, 0 to 1, of a list or a range; numbers with four digits, which can be typed."""
    if isinstance(values, list):
        return values[int(uniform * len(values))]
    low, high = values["low"], values["high"]
    is_whole = OPTIONS[name].metadata["kind"] is int
    top = high + 1 if is_whole else high
    value = math.exp(math.log(low) + uniform * math.log(top / low)) if values["log"] else low + uniform * (top - low)
    return min(high, max(low, math.floor(value))) if is_whole else min(high, max(low, float(f"{value:.4g}")))


def _name(options: Mapping[str, Any]) -> str:
    """Returns the name of a run's folder: what varies, as in "hidden=64-32,lr=0.1"; where that cannot be one, with a digest."""
    words = {
        name: "-".join(map(str, value)) if isinstance(value, tuple) and value else option_text(value).replace(",", ";")
        for name, value in options.items()
    }
    text = ",".join(f"{name}={words[name]}" for name in OPTIONS if name in words)
    safe = re.sub(r"[^\w=.,+-]", "_", text, flags=re.ASCII)[:_LONGEST_NAME]
    digest = sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]
    return text if safe == text else f"{safe},{digest}"


def _check_run(options: Mapping[str, Any], where: str) -> None:
    """Checks one configuration, as `ddpgd train` would."""
    try:
        config = Config(**options)
        check_rule_has(config.optimizer, changed(options))
        validate(config)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def table_of(plan: Plan) -> dict[str, Any]:
    """Returns the base as a JSON table, by which a folder's sweep is recognised."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plan.base.items()}
