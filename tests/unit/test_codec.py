"""Codecs: what rounding may lose and no more, the same at any scale; int8 right on average; the words are Philox's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddpgd.kernels.philox import Purpose, words
from ddpgd.kernels.reference import codecs as codec
from ddpgd.kernels.words import BLOCK

Array = NDArray[Any]

FORMATS = {"float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}
# The largest error, in units of the block's largest magnitude and of the value itself.
OF_BLOCK = {"float16": 2.0**-39, "bfloat16": 0.0, "int8": 1 / 63.5}
OF_VALUE = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "int8": 0.0}
LARGEST_AT = {"float16": (2.0**14, 2.0**15), "bfloat16": (1.0, 2.0), "int8": (63.5, 127.0)}
SIZES = (1, 1023, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK - 7)

over_formats = pytest.mark.parametrize("name", FORMATS)
over_sizes = pytest.mark.parametrize("size", SIZES)


def a_key(index: int = 0) -> Array:
    return np.array([5, Purpose.PARAMS, index], np.uint64)


def encoded(name: str, values: Array, residual: Array | None = None, key: Array | None = None, first: int = 0) -> Any:
    coded = np.zeros(values.size, FORMATS[name])
    exponents = np.full(-(-values.size // BLOCK), -999, np.int16)
    codec.encode(values, residual, a_key() if key is None else key, first, coded, exponents)
    return coded, exponents


def round_trip(name: str, values: Array, residual: Array | None = None, **more: Any) -> Array:
    decoded = np.full(values.size, np.nan, np.float32)
    codec.decode(*encoded(name, values, residual, **more), decoded)
    return decoded


def normal(size: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def of_blocks(values: Array, fold: Callable[[Array], Any]) -> Array:
    return np.array([fold(values[start : start + BLOCK]) for start in range(0, values.size, BLOCK)])


@over_formats
@over_sizes
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e-30, 1e30, 3e37])
def test_the_error_is_that_of_the_format_at_any_scale(name: str, size: int, scale: float) -> None:
    values = normal(size) * np.float32(scale)
    errors = np.abs(round_trip(name, values).astype(np.float64) - values)
    largest = np.repeat(of_blocks(np.abs(values), np.max), BLOCK)[:size].astype(np.float64)
    bound = OF_BLOCK[name] * largest + OF_VALUE[name] * np.abs(values).astype(np.float64) + 2.0**-126
    assert (errors <= bound).all()


@over_formats
@over_sizes
def test_the_largest_of_a_block_comes_to_lie_where_the_contract_says(name: str, size: int) -> None:
    values = normal(size) * np.float32(10.0) ** np.random.default_rng(1).integers(-25, 25, size).astype(np.float32)
    _, exponents = encoded(name, values)
    scaled = of_blocks(np.abs(values), np.max).astype(np.float64) * 2.0 ** exponents.astype(np.float64)
    low, high = LARGEST_AT[name]
    assert (low <= scaled).all()
    assert (scaled <= high).all() if name == "int8" else (scaled < high).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_rounding_is_to_nearest_even(name: str) -> None:
    """Against a search over all codes, by distance in float64."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    table = codes.view(np.float16) if name == "float16" else (codes.astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(table) & ~np.signbit(table)
    codes, table = codes[finite], table[finite].astype(np.float64)
    rng = np.random.default_rng(0)
    some = rng.integers(0, np.searchsorted(table, LARGEST_AT[name][1]) - 1, 500)
    middles = (table[some] + table[some + 1]) / 2
    values = np.concatenate([middles, table[some], middles * 1.0001]).astype(np.float32)
    values = np.append(values[(values >= 2.0**-126) & (values < LARGEST_AT[name][1])][: BLOCK - 1], LARGEST_AT[name][0])
    coded, exponents = encoded(name, values.astype(np.float32))
    assert exponents.tolist() == [0]
    distances = np.abs(table[:, None] - values.astype(np.float64))
    near = distances == distances.min(axis=0)
    even = np.where(near, codes[:, None] % 2, 2)
    wanted = np.where(near & (even == even.min(axis=0)), codes[:, None], 0).max(axis=0)
    np.testing.assert_array_equal(coded.view(np.uint16), wanted)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@over_sizes
def test_decoded_and_residual_are_together_what_was_given(name: str, size: int) -> None:
    values, residual = normal(size), normal(size, 4) * np.float32(1e-3)
    wanted = values + residual
    decoded = round_trip(name, values, residual)
    assert np.abs(residual).max() > 0
    np.testing.assert_array_equal(decoded.astype(np.float64) + residual, wanted.astype(np.float64))


def test_int8_loses_no_more_than_a_rounding_beside_its_residual() -> None:
    values, residual = normal(3 * BLOCK), normal(3 * BLOCK, 4) * np.float32(1e-3)
    wanted = (values + residual).astype(np.float64)
    decoded = round_trip("int8", values, residual).astype(np.float64)
    assert np.abs(decoded + residual - wanted).max() <= 2.0**-25 * np.abs(decoded).max()


def test_residuals_make_the_sum_over_steps_true() -> None:
    """What one step loses, the next brings: after many steps the sums differ by one step's loss."""
    values, residual = normal(BLOCK), np.zeros(BLOCK, np.float32)
    total = np.zeros(BLOCK)
    for step in range(50):
        total += round_trip("int8", values, residual, key=a_key(step))
    assert np.abs(total - 50 * values.astype(np.float64)).max() < 0.1


@given(st.floats(-1.0, 1.0, width=32), st.integers(0, 3))
def test_int8_is_unbiased(share: float, first: int) -> None:
    """The mean over 2^14 draws lies within five standard errors of what was coded; 100 sets the block's scale."""
    values = np.full(16 * BLOCK, np.float32(share))
    values[::BLOCK] = 100.0
    decoded = round_trip("int8", values, first=first).reshape(16, BLOCK)[:, 1:]
    fraction = abs(share) % 1.0
    error = 5 * np.sqrt(max(fraction * (1 - fraction), 1e-5) / decoded.size)
    assert abs(decoded.mean(dtype=np.float64) - values[1]) <= error


def test_int8_rounds_by_the_draw_of_an_elements_place() -> None:
    """A segment's codes do not depend on how the vector was cut, and follow from the words by the contract's formula."""
    values, key = normal(4 * BLOCK), a_key(9)
    whole, exponents = encoded("int8", values, key=key)
    for first in (BLOCK, 3 * BLOCK):
        np.testing.assert_array_equal(encoded("int8", values[first:], key=key, first=first)[0], whole[first:])
    raw = words(5, Purpose.PARAMS, 9, 2 * BLOCK)
    for i in (0, 1, 2, 1023, 1024, 4095):
        half = int(raw[i // 2]) >> (32 if i % 2 else 0) & 0xFFFFFFFF
        scaled = float(values[i]) * 2.0 ** int(exponents[i // BLOCK])
        assert whole[i] == np.floor(scaled + (half >> 8) * 2.0**-24)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@over_formats
def test_a_block_that_is_not_finite_stays_so_alone(name: str, bad: float) -> None:
    values, residual = normal(3 * BLOCK), np.full(3 * BLOCK, 0.25, np.float32)
    values[BLOCK + 5] = bad
    coded, exponents = encoded(name, values, residual)
    decoded = np.empty(values.size, np.float32)
    codec.decode(coded, exponents, decoded)
    assert exponents[1] == (127 if name == "int8" else 0)
    block = slice(BLOCK, 2 * BLOCK)
    assert not np.isfinite(decoded[BLOCK + 5])
    assert not np.isfinite(decoded[block]).any() if name == "int8" else np.isfinite(decoded[block]).sum() == BLOCK - 1
    decodable = np.isfinite(decoded)
    assert not residual[~decodable].any()
    lost = values[decodable] + np.float32(0.25) - decoded[decodable]
    np.testing.assert_array_equal(residual[decodable], lost)
    assert np.isfinite(np.delete(decoded, np.arange(BLOCK, 2 * BLOCK))).all()


@over_formats
def test_a_sum_that_overflows_is_not_finite(name: str) -> None:
    values, residual = np.full(4, 3e38, np.float32), np.full(4, 3e38, np.float32)
    assert not np.isfinite(round_trip(name, values, residual)).any()
    assert not residual.any()


@over_formats
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-39, -1e-45])
def test_zeros_and_what_counts_as_zero(name: str, value: float) -> None:
    residual = np.full(7, np.float32(value))
    coded, exponents = encoded(name, np.full(7, np.float32(value)), residual)
    assert exponents.tolist() == [0]
    assert not coded.any()
    assert not residual.any()


@over_formats
@pytest.mark.parametrize("value", [2.0**-126, 1.5 * 2.0**-126, 3.4028235e38, -(2.0**127)])
def test_tiny_and_huge_blocks(name: str, value: float) -> None:
    values, residual = np.full(8, np.float32(value)), np.zeros(8, np.float32)
    decoded = round_trip(name, values, residual)
    assert -126 <= encoded(name, values)[1][0] <= 126
    assert np.isfinite(residual).all()
    # The largest float32 is rounded up to infinity, with no residual.
    finite = np.isfinite(decoded)
    assert finite.all() or abs(value) > 3.39e38
    error = 1.0 if abs(value) < 1e-37 else 2.0**-5.9
    assert (np.abs(decoded.astype(np.float64) - values)[finite] <= error * abs(values[0])).all()


@given(st.integers(0, 2**64 - 1), st.sampled_from(Purpose), st.integers(0, 2**40), st.integers(1, 50))
def test_random_words_are_those_of_the_stream(seed: int, purpose: Purpose, index: int, count: int) -> None:
    out = np.zeros(count, np.uint64)
    codec.random_words(np.array([seed, purpose, index], np.uint64), out)
    np.testing.assert_array_equal(out, words(seed, purpose, index, count))
