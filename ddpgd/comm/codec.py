"""Codecs: the forms of windows of a gradient on the wire."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import BLOCK

Array = NDArray[Any]


class Coded(Protocol):
    """A window on its way: its values, and the array that travels in their place.

    Attributes:
        values: float32 (n,).
        wire: The array that travels; its dtype is the codec's.
        residual: What encoding has lost so far, float32 (n,), which is added to the next values; None: nothing is kept.
    """

    values: Array
    wire: Array
    residual: Array | None

    def encode(self, key: Array) -> None:
        """Fills `wire` from `values`. key uint64 (3,), of `WireOps.random_words`, for codecs that round at random."""

    def decode(self) -> None:
        """Fills `values` from `wire`."""


class Codec(Protocol):
    """A form of windows on the wire.

    Attributes:
        name: The value of `--wire`.
        exact: True if decoded values are the encoded ones, so that pieces may travel separately.
        random: True if each encoding needs another random key.
    """

    name: str
    exact: bool
    random: bool

    def num_bytes(self, num_values: int) -> int:
        """Returns the bytes in which so many values travel."""

    def coded(self, values: Array, offset: int, residual: Array | None) -> Coded:
        """Makes the coded form of a window, once, before any exchange.

        Args:
            values: float32 (n,).
            offset: The place of the first value in the whole vector.
            residual: float32 (n,), or None.
        """


class Plain:
    """A window that travels as it is."""

    def __init__(self, values: Array) -> None:
        self.values = self.wire = values
        self.residual: Array | None = None

    def encode(self, key: Array) -> None:
        pass

    def decode(self) -> None:
        pass


class BlockNorms:
    """A segment of which others get the squared norms of its blocks alone: values (n, 1024), wire float32 (n,)."""

    def __init__(self, ops: Ops, values: Array, wire: Array) -> None:
        self.values, self.wire = values, wire
        self.residual: Array | None = None
        self._ops = ops

    def encode(self, key: Array) -> None:  # noqa: ARG002
        self._ops.squared_norms(self.values, self.wire)

    def decode(self) -> None:
        pass


class Float32:
    """`Codec` of the values themselves: nothing is copied, nothing is lost."""

    name = "float32"
    exact = True
    random = False

    def num_bytes(self, num_values: int) -> int:
        return 4 * num_values

    def coded(self, values: Array, offset: int, residual: Array | None) -> Coded:  # noqa: ARG002
        return Plain(values)


class Format(NamedTuple):
    """Block scaling: a code for each value, and an exponent for each block of 1,024; see `WireOps.encode`.

    Attributes:
        dtype: The type in which codes are stored.
        bound: The largest error of a value, over the largest magnitude of its block.
        random: True if values are rounded stochastically.
    """

    dtype: DTypeLike
    bound: float
    random: bool = False

    def num_bytes(self, num_values: int) -> int:
        """Returns the bytes in which so many values travel."""
        return self.exponents_at(num_values) + 2 * -(-num_values // BLOCK)

    def exponents_at(self, num_values: int) -> int:
        """Returns the offset of the exponents in those bytes: they are aligned to 2."""
        return -(-num_values * np.dtype(self.dtype).itemsize // 2) * 2


class BlockScaled:
    """`Codec` of a `Format`, whose formula has the same name: a power of two for each block, so that nothing overflows."""

    exact = False

    def __init__(self, ops: Ops, name: str, format: Format) -> None:
        self.name = name
        self.random = format.random
        self.num_bytes = format.num_bytes
        self._ops = ops
        self._format = format

    def coded(self, values: Array, offset: int, residual: Array | None) -> Coded:
        return _Scaled(self._ops, self.name, self._format, values, offset, residual)


class _Scaled:
    """A window on its way: its codes, then an exponent for each block, in one array of bytes."""

    def __init__(self, ops: Ops, name: str, format: Format, values: Array, offset: int, residual: Array | None) -> None:
        assert offset % BLOCK == 0, "a window begins with a block"
        self.values = values
        self.residual = residual
        self._ops = ops
        self._name = name
        self._offset = offset
        self.wire = ops.zeros((format.num_bytes(len(values)),), np.uint8)
        self._codes = self.wire[: len(values) * np.dtype(format.dtype).itemsize].view(format.dtype)
        self._exponents = self.wire[format.exponents_at(len(values)) :].view(np.int16)

    def encode(self, key: Array) -> None:
        wire = self._ops.wire
        wire.encode(self._name, self.values, self.residual, key, self._offset, self._codes, self._exponents)

    def decode(self) -> None:
        self._ops.wire.decode(self._name, self._codes, self._exponents, self.values)


class WireLoss(NamedTuple):
    """The loss of encodings.

    Attributes:
        relative_error: The norm of the error over the norm of the values.
        flushed_share: The share of the elements that became 0, among those that were not 0.
        flushed_norm_share: The norm of the elements that became 0 over the norm of all.
    """

    relative_error: float
    flushed_share: float
    flushed_norm_share: float


def measure(sent: list[Coded], to_host: Callable[[Array], Array]) -> WireLoss | None:
    """Measures the loss of windows that have just been encoded; decodes them over their values.

    Args:
        sent: The windows. Their values are not needed any more.
        to_host: Copies an array to the host.

    Returns:
        The loss of all windows together, or None if nothing but zeros was sent.
    """
    squares = error_squares = flushed_squares = 0.0
    num_values = num_flushed = 0
    for coded in sent:
        if coded.wire is coded.values:
            continue
        meant = np.array(to_host(coded.values), np.float64)
        coded.decode()
        applied = np.array(to_host(coded.values), np.float64)
        if coded.residual is not None:
            meant = applied + to_host(coded.residual)
        flushed = (applied == 0) & (meant != 0)
        num_values += int(np.count_nonzero(meant))
        num_flushed += int(np.count_nonzero(flushed))
        squares += float(meant @ meant)
        error_squares += float(np.sum((meant - applied) ** 2))
        flushed_squares += float(np.sum(meant[flushed] ** 2))
    if not squares > 0:
        return None
    return WireLoss(math.sqrt(error_squares / squares), num_flushed / num_values, math.sqrt(flushed_squares / squares))
