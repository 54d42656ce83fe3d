"""The schema of checkpoints: every value that a checkpoint may hold, with bounds. What is not listed is refused."""

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from ddpgd.config.schema import Config, from_table
from ddpgd.config.validation import check_ranges
from ddpgd.errors import InputError, shown
from ddpgd.run import build_network, former_layout
from ddpgd.run.diagnosis_memory import is_memory
from ddpgd.run.former_layout import VECTOR_FORMAT
from ddpgd.run.safetensors_file import PIECE_BYTES
from ddpgd.training.counters import Counters

_LARGEST_INT = 2**63
_LONGEST_TEXT = 200
_MOST_LAYERS = 1000
_MOST_PIXELS = 2**24
_MOST_CLASSES = 1_000_000
_MOST_RANKS = 2**20

_NEEDED_FACTS = ("image_shape", "data_sha256", "world_size")


def find_problem(
    arrays: Mapping[str, NDArray[Any]], counters: Mapping[str, Any], config: Mapping[str, Any], facts: Mapping[str, Any]
) -> str:
    """Returns why this version cannot use a checkpoint with these contents; empty: it can."""
    try:
        _check_counters(counters)
        _check_facts(facts)
        _check_params(arrays, _checked_config(config), facts["image_shape"])
    except (ValueError, InputError) as error:
        return str(error)
    return ""


def find_non_finite(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Returns the first of the params that holds NaN or infinity; empty: none does."""
    for name in sorted(name for name in arrays if name.startswith("params.")):
        flat = arrays[name].reshape(-1)
        for start in range(0, flat.size, PIECE_BYTES):
            if not np.isfinite(flat[start : start + PIECE_BYTES]).all():
                return name.removeprefix("params.")
    return ""


def in_todays_form(
    arrays: dict[str, NDArray[Any]], config: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a checkpoint that this version can use, of whatever version, as this one writes them."""
    if facts.get("vector_format") == VECTOR_FORMAT:
        return arrays
    return former_layout.moved(arrays, build_network.layout(from_table(config), facts["image_shape"]))


def _check_counters(counters: Mapping[str, Any]) -> None:
    """Earlier versions had fewer counters, so all but the step may be missing."""
    types = get_type_hints(Counters)
    if "step" not in counters:
        raise ValueError("its counters have no step")
    for name, value in counters.items():
        if name not in types:
            raise ValueError(f"there is no counter {shown(name)}")
        allowed = get_args(types[name]) or (types[name],)
        kind = type(value)
        if kind is int:
            fits = 0 <= value < _LARGEST_INT and (int in allowed or float in allowed)
        else:
            fits = kind in allowed
        if not fits:
            raise ValueError(f"the counter {name} is {shown(value)}")


def _check_facts(facts: Mapping[str, Any]) -> None:
    for name in _NEEDED_FACTS:
        if name not in facts:
            raise ValueError(f"it does not tell {name}")
    for name, value in facts.items():
        if name not in _FACTS:
            raise ValueError(f"there is no fact {shown(name)}")
        if not _FACTS[name](value):
            raise ValueError(f"{name} is {shown(value)}")


def _checked_config(table: Mapping[str, Any]) -> Config:
    config = from_table(table)
    check_ranges(config)
    if len(config.hidden) > _MOST_LAYERS:
        raise ValueError(f"hidden is {shown(config.hidden)}")
    return config


def _check_params(arrays: Mapping[str, NDArray[Any]], config: Config, image_shape: tuple[int, int]) -> None:
    wanted = {f"params.{name}": shape for name, shape in build_network.layout(config, image_shape).shapes.items()}
    found = {name for name in arrays if name.startswith("params.")}
    for name in sorted(wanted.keys() ^ found):
        raise ValueError(f"{'no array' if name in wanted else 'an array'} {shown(name)} for this network")
    for name, shape in wanted.items():
        array = arrays[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, where float32 {shape} is wanted")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_count(length, _MOST_PIXELS) for length in value)
        and math.prod(value) <= _MOST_PIXELS
    )


_FACTS: dict[str, Callable[[Any], bool]] = {
    "version": _is_text,
    "backend": _is_text,
    "image_shape": _is_shape,
    "data_sha256": _is_text,
    "class_names": lambda value: isinstance(value, list) and len(value) <= _MOST_CLASSES and all(map(_is_text, value)),
    "world_size": lambda value: _is_count(value, _MOST_RANKS),
    "params_sha256": _is_text,
    "diagnosis": is_memory,
    "vector_format": lambda value: _is_count(value, VECTOR_FORMAT),
}
