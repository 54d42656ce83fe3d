"""Codecs: the form that windows of a gradient have on the wire."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import BLOCK

Array = NDArray[Any]


class Coded(Protocol):
    """A window's values, the array that travels in their place, and what turns one into the other.

    `residual`: what encoding has lost so far, which the next one adds; None: nothing is kept.
    """

    values: Array
    wire: Array
    residual: Array | None

    def encode(self, key: Array) -> None:
        """Fills `wire` from `values`. key uint64 (3,), of `WireOps.random_words`, for codecs that round at random."""

    def decode(self) -> None:
        """Fills `values` from `wire`."""


class Codec(Protocol):
    """A wire format. `name` is what `--wire` and the summary call it.

    `exact`: decoded is what was encoded, so pieces may travel apart. `random`: it needs another key for each encoding.
    """

    name: str
    exact: bool
    random: bool

    def coded(self, values: Array, first: int, residual: Array | None) -> Coded:
        """`values` (n,) float32, which begin at element `first` of the whole vector; made once, before any exchange."""


class Plain:
    """A window that travels as it is."""

    def __init__(self, values: Array) -> None:
        self.values = self.wire = values
        self.residual: Array | None = None

    def encode(self, key: Array) -> None:
        pass

    def decode(self) -> None:
        pass


class Float32:
    """The values themselves: nothing to copy, nothing lost."""

    name = "float32"
    exact = True
    random = False

    def coded(self, values: Array, first: int, residual: Array | None) -> Coded:  # noqa: ARG002
        return Plain(values)


class Format(NamedTuple):
    """An encoding by blocks: how it is stored, and its bound: the largest error over the largest magnitude of a block."""

    dtype: DTypeLike
    bound: float


FORMATS = {
    # Half a unit in the last place of a value in [2^14, 2^15), over 2^14. Micikevicius et al., "Mixed precision
    # training", 2018.
    "float16": Format(np.float16, 2.0**-11),
    # As float16, with 8 significant bits. Kalamkar et al., "A study of bfloat16 for deep learning training", 2019.
    "bfloat16": Format(np.uint16, 2.0**-8),
    # One step, over at least 63.5. Alistarh et al., "QSGD: communication-efficient SGD via gradient quantization and
    # encoding", 2017; Seide et al., "1-bit stochastic gradient descent", 2014, for the residual.
    "int8": Format(np.int8, 1 / 63.5),
}


class BlockScaled:
    """float16, bfloat16 or int8, with a power of two for each block of 1,024 values: nothing overflows. See WireOps.encode."""

    exact = False

    def __init__(self, ops: Ops, name: str) -> None:
        self.name = name
        self.random = name == "int8"
        self._ops = ops

    def coded(self, values: Array, first: int, residual: Array | None) -> Coded:
        return _Scaled(self._ops, np.dtype(FORMATS[self.name].dtype), values, first, residual)


class _Scaled:
    """A window on its way: coded values, then an exponent for each block, in one array of bytes."""

    def __init__(self, ops: Ops, dtype: np.dtype[Any], values: Array, first: int, residual: Array | None) -> None:
        assert first % BLOCK == 0, "a window begins with a block"
        self.values = values
        self.residual = residual
        self._ops = ops
        self._first = first
        num_values, num_blocks = len(values), -(-len(values) // BLOCK)
        exponents_at = -(-num_values * dtype.itemsize // 2) * 2
        self.wire = ops.zeros((exponents_at + 2 * num_blocks,), np.uint8)
        self._coded = self.wire[: num_values * dtype.itemsize].view(dtype)
        self._exponents = self.wire[exponents_at:].view(np.int16)

    def encode(self, key: Array) -> None:
        self._ops.wire.encode(self.values, self.residual, key, self._first, self._coded, self._exponents)

    def decode(self) -> None:
        self._ops.wire.decode(self._coded, self._exponents, self.values)


class WireLoss(NamedTuple):
    """What encoding lost: the norm of the error over that of the values; of the elements that were not 0, the share that
    became 0; and those elements' norm over that of all."""

    relative_error: float
    flushed_share: float
    flushed_norm_share: float


def measure(sent: list[Coded], to_host: Callable[[Array], Array]) -> WireLoss | None:
    """What was lost of windows that have just been encoded, and whose values are not needed any more: they are decoded.

    None: nothing was sent, or nothing but zeros.
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
