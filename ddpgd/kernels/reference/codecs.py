"""The codecs and random words of the reference: a formula for each format of `comm.wires`. Contract: `WireOps`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.codec_ops import NOT_FINITE, Array
from ddpgd.kernels.philox import WORDS_PER_BLOCK, Purpose, words
from ddpgd.kernels.words import BLOCK

_SMALLEST = np.float32(2.0**-126)
_PART = 64 * BLOCK
"""Elements that are coded at once: they and all that is made of them fit into a core's cache."""

Draws = Callable[[], Array]


class Formula(NamedTuple):
    """The codes of a format.

    Attributes:
        top: The largest magnitude of a block is scaled by a power of two into (top / 2, top].
        round: round(scaled, draws) returns the codes of scaled values, float32 (n,). Formats that round at random call
            draws() for 24-bit uniform integers, uint32 (n,).
        widen: widen(codes) returns the values of codes, float32 (n,). Code 1 has the smallest magnitude but 0.
    """

    top: float
    round: Callable[[NDArray[np.float32], Draws], Array]
    widen: Callable[[Array], NDArray[np.float32]]


def _to_float16(scaled: NDArray[np.float32], _: Draws) -> Array:
    return scaled.astype(np.float16).view(np.uint16)


def _from_float16(codes: Array) -> NDArray[np.float32]:
    return codes.view(np.float16).astype(np.float32)


def _to_bfloat16(scaled: NDArray[np.float32], _: Draws) -> Array:
    """Returns the upper 16 bits, rounded to nearest even."""
    bits = scaled.view(np.uint32)
    return bits + 0x7FFF + (bits >> 16 & 1) >> 16


def _from_bfloat16(codes: Array) -> NDArray[np.float32]:
    return (codes.astype(np.uint32) << 16).view(np.float32)


def _to_int8(scaled: NDArray[np.float32], draws: Draws) -> Array:
    """Returns floor(scaled + u), in units of 2^-24: an unbiased rounding."""
    units: Array = np.rint(scaled * np.float32(2.0**24)).astype(np.int64)
    return units + draws() >> 24


def _from_int8(codes: Array) -> NDArray[np.float32]:
    return codes.astype(np.float32)


FORMULAS = {
    "float16": Formula(2.0**15 - 2.0**-9, _to_float16, _from_float16),
    "bfloat16": Formula(2.0 - 2.0**-23, _to_bfloat16, _from_bfloat16),
    "int8": Formula(127.0, _to_int8, _from_int8),
}
"""The formulas by the formats' names."""


def random_words(key: Array, out: Array) -> None:
    """`WireOps.random_words`."""
    out[...] = _words(key, out.size)


def encode(
    format: str, values: Array, residual: Array | None, key: Array, offset: int, codes: Array, exponents: Array
) -> None:
    """`WireOps.encode`."""
    formula = FORMULAS[format]
    with np.errstate(over="ignore", invalid="ignore"):
        for part, blocks, shape in _parts(values.size):
            meant = _flush(values[part].copy())
            if residual is not None:
                meant = _flush(meant + _flush(residual[part]))
            exponents[blocks] = _exponents(np.abs(meant).reshape(shape).max(axis=1), formula.top)
            scaled = _times_powers(meant, exponents[blocks], shape, 2.0**-126)
            scaled.reshape(shape)[exponents[blocks] == NOT_FINITE] = 0
            codes[part] = formula.round(scaled, partial(_draws, key, offset + part.start, scaled.size))
            if residual is not None:
                lost = _flush(meant - _decoded(formula, codes[part], exponents[blocks], shape))
                np.copyto(lost, 0, where=~np.isfinite(lost))
                residual[part] = lost


def decode(format: str, codes: Array, exponents: Array, values: Array) -> None:
    """`WireOps.decode`."""
    with np.errstate(over="ignore", invalid="ignore"):
        for part, blocks, shape in _parts(values.size):
            values[part] = _decoded(FORMULAS[format], codes[part], exponents[blocks], shape)


def _decoded(formula: Formula, codes: Array, exponents: Array, shape: tuple[int, int]) -> NDArray[np.float32]:
    least = float(formula.widen(np.ones(1, codes.dtype))[0])
    values = _times_powers(formula.widen(codes), -exponents, shape, least)
    values.reshape(shape)[exponents == NOT_FINITE] = np.nan
    return values


def _parts(size: int) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Cuts a vector into parts: elements, numbers of blocks, (blocks, elements of each). A short block comes last, alone."""
    whole = size // BLOCK * BLOCK
    for start in [*range(0, whole, _PART), *([whole] if whole < size else [])]:
        stop = min(start + _PART, whole) if start < whole else size
        first, end = start // BLOCK, -(-stop // BLOCK)
        yield slice(start, stop), slice(first, end), (end - first, (stop - start) // (end - first))


def _flush(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sets magnitudes under 2^-126 to 0, in place."""
    np.copyto(values, 0, where=np.abs(values) < _SMALLEST)
    return values


def _exponents(largest: NDArray[np.float32], top: float) -> Array:
    """Returns the exponents of blocks by their largest magnitudes, whose bits are in the order of magnitudes, NaN last."""
    bits = largest.view(np.uint32).astype(np.int64)
    exponents: Array = np.clip(int(np.float32(top).view(np.uint32)) - bits >> 23, -126, 126)
    exponents[bits == 0] = 0
    exponents[bits >= 0x7F800000] = NOT_FINITE
    return exponents


def _times_powers(values: Array, exponents: Array, shape: tuple[int, int], least: float) -> NDArray[np.float32]:
    """Returns values 2^e, with the e of each element's block, flushed. `least`: their smallest magnitude but 0."""
    powers = np.ldexp(np.float32(1), exponents)
    product: NDArray[np.float32] = (values.reshape(shape) * powers[:, None]).ravel()
    if powers.min() * least < _SMALLEST:
        return _flush(product)
    product += 0  # -0.0 counts as 0 as well
    return product


def _words(key: Array, count: int, block: int = 0) -> NDArray[np.uint64]:
    seed, purpose, index = (int(word) for word in key)
    return words(seed, Purpose(purpose), index, count, block)


def _draws(key: Array, offset: int, count: int) -> Array:
    """Returns the 24-bit draws of elements offset to offset + count of the whole vector."""
    block, skipped = divmod(offset, 2 * WORDS_PER_BLOCK)
    raw = _words(key, -(-(skipped + count) // 2), block).astype("<u8", copy=False)
    draws: Array = raw.view("<u4")[skipped : skipped + count] >> 8
    return draws
