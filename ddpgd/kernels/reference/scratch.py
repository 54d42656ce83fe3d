"""Scratch arrays of the reference: made at the first use of a shape and kept, so that a loop allocates nothing."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.device_ops import Array

T = TypeVar("T")


class Scratch:
    """scratch(purpose, shape, dtype): an array of undefined content, always the same for the same arguments."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...], DTypeLike], Array] = {}
        self._kept: dict[tuple[Any, ...], Any] = {}

    def __call__(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        key = (purpose, shape, dtype)
        array = self._arrays.get(key)
        if array is None:
            array = self._arrays[key] = np.empty(shape, dtype)
        return array

    def keep(self, make: Callable[..., T], *arguments: Any) -> T:
        """The result of the first call of make(*arguments)."""
        key = (make, *arguments)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = make(*arguments)
        return cast(T, kept)
