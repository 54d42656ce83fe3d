"""The reference of the codecs and of the device's random words, in NumPy: bit for bit what the kernels make."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.codec_ops import Array
from ddpgd.kernels.philox import WORDS_PER_BLOCK, Purpose, words
from ddpgd.kernels.words import BLOCK

_SMALLEST = np.float32(2.0**-126)
_PART = 64 * BLOCK
"""As many elements as stay in a core's cache with all that is made of them."""

_FORMATS = {"f": "float16", "u": "bfloat16", "i": "int8"}


class _Law(NamedTuple):
    """The exponent to which a block's largest magnitude is brought: below 2^(1 + to), or by one less above `mantissa`.

    `least`: the smallest magnitude but 0 of a code.
    """

    to: int
    mantissa: int
    of_non_finite: int
    least: float


_LAWS = {
    "float16": _Law(14, 0x7FFFFF, 0, 2.0**-24),
    "bfloat16": _Law(0, 0x7FFFFF, 0, 2.0**-126),
    "int8": _Law(6, 0x7E0000, 127, 1.0),
}


def random_words(key: Array, out: Array) -> None:
    """The first words of stream (seed, purpose, index) = `key`."""
    out[...] = _words(key, out.size)


def encode(values: Array, residual: Array | None, key: Array, first: int, coded: Array, exponents: Array) -> None:
    """`WireOps.encode`."""
    name = _FORMATS[coded.dtype.kind]
    with np.errstate(over="ignore", invalid="ignore"):
        for part, blocks, shape in _parts(values.size):
            wanted = _flush(values[part].copy())
            if residual is not None:
                wanted = _flush(wanted + _flush(residual[part]))
            largest = np.abs(wanted).reshape(shape).max(axis=1)
            exponents[blocks] = _exponents(largest, _LAWS[name])
            scaled = _times_powers(wanted, exponents[blocks], shape, 2.0**-126)
            if name == "float16":
                coded[part] = scaled
                if not np.isfinite(largest).all():
                    np.copyto(coded[part], np.nan, where=np.isnan(scaled))  # one NaN, whatever stood there
            elif name == "bfloat16":
                coded[part] = _to_bfloat16(scaled)
            else:
                scaled.reshape(shape)[exponents[blocks] == _LAWS[name].of_non_finite] = 0
                coded[part] = _at_random(scaled, key, first + part.start)
            if residual is not None:
                lost = _flush(wanted - _decoded(name, coded[part], exponents[blocks], shape))
                np.copyto(lost, 0, where=~np.isfinite(lost))
                residual[part] = lost


def decode(coded: Array, exponents: Array, values: Array) -> None:
    """`WireOps.decode`."""
    name = _FORMATS[coded.dtype.kind]
    with np.errstate(over="ignore", invalid="ignore"):
        for part, blocks, shape in _parts(values.size):
            values[part] = _decoded(name, coded[part], exponents[blocks], shape)


def _parts(size: int) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Some blocks at a time: their elements, their numbers, and (blocks, elements of each): a short one comes last, alone."""
    whole = size // BLOCK * BLOCK
    for start in [*range(0, whole, _PART), *([whole] if whole < size else [])]:
        stop = min(start + _PART, whole) if start < whole else size
        first, end = start // BLOCK, -(-stop // BLOCK)
        yield slice(start, stop), slice(first, end), (end - first, (stop - start) // (end - first))


def _words(key: Array, count: int, block: int = 0) -> NDArray[np.uint64]:
    seed, purpose, index = (int(word) for word in key)
    return words(seed, Purpose(purpose), index, count, block)


def _flush(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitudes under 2^-126 become 0, in place."""
    np.copyto(values, 0, where=np.abs(values) < _SMALLEST)
    return values


def _exponents(largest: NDArray[np.float32], law: _Law) -> Array:
    """From the largest magnitude of each block, whose bits are in the order of magnitudes, a NaN above all."""
    bits = largest.view(np.uint32).astype(np.int64)
    exponents: Array = np.clip(law.to + 127 - (bits >> 23) - (bits & 0x7FFFFF > law.mantissa), -126, 126)
    exponents[bits == 0] = 0
    exponents[bits >= 0x7F800000] = law.of_non_finite
    return exponents


def _times_powers(values: Array, exponents: Array, shape: tuple[int, int], least: float) -> NDArray[np.float32]:
    """values 2^e, with the e of each element's block, flushed; values but 0 have a magnitude of at least `least`."""
    powers = np.ldexp(np.float32(1), exponents)
    product: NDArray[np.float32] = (values.reshape(shape) * powers[:, None]).ravel()
    if powers.min() * least < _SMALLEST:
        return _flush(product)
    product += 0  # -0.0 counts as 0 as well
    return product


def _decoded(name: str, coded: Array, exponents: Array, shape: tuple[int, int]) -> NDArray[np.float32]:
    wide = (coded.astype(np.uint32) << 16).view(np.float32) if name == "bfloat16" else coded.astype(np.float32)
    values = _times_powers(wide, -exponents, shape, _LAWS[name].least)
    if name == "int8":
        values.reshape(shape)[exponents == _LAWS[name].of_non_finite] = np.nan
    return values


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[Any]:
    """The upper 16 bits, rounded to nearest even."""
    bits = values.view(np.uint32)
    rounded = bits + 0x7FFF + (bits >> 16 & 1) >> 16
    np.copyto(rounded, 0x7FC0, where=np.isnan(values))
    return rounded


def _at_random(scaled: Array, key: Array, first: int) -> Array:
    """floor(scaled + u), in units of 2^-24."""
    block, skipped = divmod(first, 2 * WORDS_PER_BLOCK)
    raw = _words(key, -(-(skipped + scaled.size) // 2), block).astype("<u8", copy=False)
    draws = raw.view("<u4")[skipped : skipped + scaled.size] >> 8
    units = np.rint(scaled * np.float32(2.0**24)).astype(np.int64)
    return units + draws >> 24
