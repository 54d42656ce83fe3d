"""The reference of the codecs and of the device's random words, in NumPy: bit for bit what the kernels make."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.ops import Array
from ddpgd.params import BLOCK
from ddpgd.philox import Purpose, words

_SMALLEST = np.float32(2.0**-126)
_FORMATS = {"f": "float16", "u": "bfloat16", "i": "int8"}


class _Law(NamedTuple):
    """Where the largest magnitude of a block is brought: below 2^(1 + to), or by one less above `mantissa`."""

    to: int
    mantissa: int
    of_non_finite: int


_LAWS = {
    "float16": _Law(14, 0x7FFFFF, 0),
    "bfloat16": _Law(0, 0x7FFFFF, 0),
    "int8": _Law(6, 0x7E0000, 127),
}


def random_words(key: Array, out: Array) -> None:
    """The first words of stream (seed, purpose, index) = `key`."""
    seed, purpose, index = (int(word) for word in key)
    out[...] = words(seed, Purpose(purpose), index, out.size)


def encode(values: Array, residual: Array | None, key: Array, first: int, coded: Array, exponents: Array) -> None:
    """`Ops.encode`."""
    name = _FORMATS[coded.dtype.kind]
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = _flushed(values) if residual is None else _flushed(_flushed(values) + _flushed(residual))
        exponents[...] = _exponents(wanted, _LAWS[name])
        scaled = _flushed(wanted * _powers(exponents, 1, values.size))
        if name == "float16":
            coded[...] = np.where(np.isnan(scaled), np.float16(np.nan), scaled.astype(np.float16))
        elif name == "bfloat16":
            coded[...] = _to_bfloat16(scaled)
        else:
            void = _spread(exponents == _LAWS[name].of_non_finite, values.size)
            coded[...] = _at_random(np.where(void, np.float32(0), scaled), key, first)
        if residual is not None:
            decode(coded, exponents, residual)
            residual[...] = np.where(np.isfinite(residual), _flushed(wanted - residual), np.float32(0))


def decode(coded: Array, exponents: Array, values: Array) -> None:
    """`Ops.decode`."""
    name = _FORMATS[coded.dtype.kind]
    wide = (coded.astype(np.uint32) << 16).view(np.float32) if name == "bfloat16" else coded.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        values[...] = _flushed(wide * _powers(exponents, -1, coded.size))
    if name == "int8":
        values[_spread(exponents == _LAWS[name].of_non_finite, coded.size)] = np.nan


def _flushed(values: Array) -> NDArray[np.float32]:
    """Magnitudes under 2^-126 count as 0."""
    flushed: NDArray[np.float32] = np.where(np.abs(values) < _SMALLEST, np.float32(0), values)
    return flushed


def _largest(values: Array) -> NDArray[np.int64]:
    """The bits of each block's largest magnitude, whose order is that of magnitudes, a NaN above all."""
    magnitudes = np.zeros(-(-values.size // BLOCK) * BLOCK, np.int64)
    magnitudes[: values.size] = values.view(np.uint32) & 0x7FFFFFFF
    largest: NDArray[np.int64] = magnitudes.reshape(-1, BLOCK).max(axis=1)
    return largest


def _exponents(values: Array, law: _Law) -> Array:
    largest = _largest(values)
    exponents: Array = np.clip(law.to + 127 - (largest >> 23) - (largest & 0x7FFFFF > law.mantissa), -126, 126)
    exponents[largest == 0] = 0
    exponents[largest >= 0x7F800000] = law.of_non_finite
    return exponents


def _spread(of_blocks: Array, size: int) -> Array:
    return np.repeat(of_blocks, BLOCK)[:size]


def _powers(exponents: Array, sign: int, size: int) -> Array:
    """2^(sign e) for each element."""
    return _spread(np.ldexp(np.float32(1), sign * exponents.astype(np.int32)), size)


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[Any]:
    """The upper 16 bits, rounded to nearest even."""
    bits = values.view(np.uint32).astype(np.uint64)
    return np.where(np.isnan(values), 0x7FC0, bits + 0x7FFF + (bits >> 16 & 1) >> 16)


def _at_random(scaled: Array, key: Array, first: int) -> Array:
    """floor(scaled + u), in units of 2^-24."""
    places = first + np.arange(scaled.size)
    raw = np.empty((first + scaled.size + 1) // 2, np.uint64)
    random_words(key, raw)
    draws = (raw[places // 2] >> np.where(places % 2 == 0, 8, 40).astype(np.uint64)) & np.uint64(0xFFFFFF)
    units = np.rint(scaled * np.float32(2.0**24)).astype(np.int64)
    return units + draws.astype(np.int64) >> 24
