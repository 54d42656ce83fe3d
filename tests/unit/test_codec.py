"""Codecs: every format rounds to the nearest codes, within its bound at any scale; int8 is unbiased; words are Philox's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddpgd.comm.wires import FORMATS
from ddpgd.kernels.codec_ops import NOT_FINITE
from ddpgd.kernels.philox import Purpose, words
from ddpgd.kernels.reference import codecs
from ddpgd.kernels.words import BLOCK
from oracles import from_bfloat16, largest_of_blocks

Array = NDArray[Any]

MEANINGS: dict[str, Callable[[Array], Array]] = {
    "float16": lambda codes: codes.view(np.float16),
    "bfloat16": from_bfloat16,
    "int8": lambda codes: codes,
}
SIZES = (1, 1023, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK - 7)

over_formats = pytest.mark.parametrize("name", FORMATS)
over_sizes = pytest.mark.parametrize("size", SIZES)


def a_key(index: int = 0) -> Array:
    return np.array([5, Purpose.PARAMS, index], np.uint64)


def encoded(name: str, values: Array, residual: Array | None = None, key: Array | None = None, offset: int = 0) -> Any:
    codes = np.zeros(values.size, FORMATS[name].dtype)
    exponents = np.full(-(-values.size // BLOCK), -999, np.int16)
    codecs.encode(name, values, residual, a_key() if key is None else key, offset, codes, exponents)
    return codes, exponents


def decoded(name: str, codes: Array, exponents: Array) -> Array:
    values = np.full(codes.size, np.nan, np.float32)
    codecs.decode(name, codes, exponents, values)
    return values


def round_trip(name: str, values: Array, residual: Array | None = None, **more: Any) -> Array:
    return decoded(name, *encoded(name, values, residual, **more))


def normal(size: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def codes_in_order(name: str) -> tuple[Array, Array]:
    """All codes of positive values, and these values, ascending."""
    dtype = np.dtype(FORMATS[name].dtype)
    codes = np.arange(1 << 8 * dtype.itemsize).astype(f"u{dtype.itemsize}").view(dtype)
    values = decoded(name, codes, np.zeros(-(-codes.size // BLOCK), np.int16)).astype(np.float64)
    there = np.flatnonzero(np.isfinite(values) & (values > 0))
    there = there[np.argsort(values[there])]
    return codes[there], values[there]


@over_formats
@over_sizes
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e-30, 1e30, 3e37])
def test_the_error_is_that_of_the_format_at_any_scale(name: str, size: int, scale: float) -> None:
    values = normal(size) * np.float32(scale)
    errors = np.abs(round_trip(name, values).astype(np.float64) - values)
    assert (errors <= FORMATS[name].bound * largest_of_blocks(values) + 2.0**-126).all()


@over_formats
@over_sizes
def test_the_largest_of_a_block_comes_to_lie_where_the_contract_says(name: str, size: int) -> None:
    values = normal(size) * np.float32(10.0) ** np.random.default_rng(1).integers(-25, 25, size).astype(np.float32)
    _, exponents = encoded(name, values)
    scaled = largest_of_blocks(values)[::BLOCK] * 2.0 ** exponents.astype(np.float64)
    top = codecs.FORMULAS[name].top
    assert ((top / 2 < scaled) & (scaled <= top)).all()


@pytest.mark.parametrize("name", MEANINGS)
def test_codes_have_their_published_values(name: str) -> None:
    codes, values = codes_in_order(name)
    np.testing.assert_array_equal(values, MEANINGS[name](codes).astype(np.float64))


@over_formats
def test_code_1_has_the_smallest_magnitude(name: str) -> None:
    codes, values = codes_in_order(name)
    assert codes[0] == 1 or values[0] == 2.0**-126


@over_formats
def test_rounding_is_to_the_nearest_code_or_at_random_to_a_neighbour(name: str) -> None:
    """Against a search over all codes, by distance in float64; ties to even."""
    top = codecs.FORMULAS[name].top
    codes, table = codes_in_order(name)
    some = np.random.default_rng(0).choice(np.flatnonzero(table[1:] <= top), 300)
    middles = (table[some] + table[some + 1]) / 2
    values = np.concatenate([middles, table[some], middles * 1.0001, [top]]).astype(np.float32)
    found, exponents = encoded(name, values)
    assert exponents.tolist() == [0]
    above = np.searchsorted(table, values.astype(np.float64)).clip(1, table.size - 1)
    lower, upper = values - table[above - 1], table[above] - values
    nearest = np.where((lower < upper) | (lower == upper) & (codes[above] % 2 == 1), codes[above - 1], codes[above])
    if FORMATS[name].random:
        assert ((found == codes[above]) | (found == codes[above - 1]) & (upper > 0)).all()
        assert (found != nearest).any()
    else:
        np.testing.assert_array_equal(found, nearest)
        np.testing.assert_array_equal(round_trip(name, -values), -round_trip(name, values))


@over_formats
@over_sizes
def test_decoded_and_residual_are_together_what_was_given(name: str, size: int) -> None:
    """Exactly, but for one rounding of the residual where a value may be rounded to the farther neighbour."""
    values, residual = normal(size), normal(size, 4) * np.float32(1e-3)
    wanted = (values + residual).astype(np.float64)
    applied = round_trip(name, values, residual).astype(np.float64)
    assert np.abs(residual).max() > 0
    assert np.abs(applied + residual - wanted).max() <= FORMATS[name].random * 2.0**-25 * np.abs(applied).max()


@over_formats
def test_residuals_make_the_sum_over_steps_true(name: str) -> None:
    """The next step adds what one step loses: after many steps the sums differ by one step's loss."""
    values, residual = normal(BLOCK), np.zeros(BLOCK, np.float32)
    total = np.zeros(BLOCK)
    for step in range(50):
        total += round_trip(name, values, residual, key=a_key(step))
    assert np.abs(total - 50 * values.astype(np.float64)).max() < 2 * FORMATS[name].bound * np.abs(values).max()


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if format.random])
@given(share=st.floats(-1.0, 1.0, width=32), offset=st.integers(0, 3))
def test_rounding_at_random_is_unbiased(name: str, share: float, offset: int) -> None:
    """The mean over 2^14 draws lies within five standard errors of what was coded; 100 sets the block's scale."""
    values = np.full(16 * BLOCK, np.float32(share))
    values[::BLOCK] = 100.0
    applied = round_trip(name, values, offset=offset).reshape(16, BLOCK)[:, 1:].astype(np.float64)
    variance = max(abs(share), 1e-5) * 100 * FORMATS[name].bound  # at most: of 0 or a step, share on average
    assert abs(applied.mean() - values[1]) <= 5 * np.sqrt(variance / applied.size)


@over_formats
def test_codes_do_not_depend_on_how_the_vector_was_cut(name: str) -> None:
    values = normal(4 * BLOCK)
    whole, _ = encoded(name, values)
    for offset in (BLOCK, 3 * BLOCK):
        np.testing.assert_array_equal(encoded(name, values[offset:], offset=offset)[0], whole[offset:])


def test_int8_rounds_by_the_draw_of_an_elements_place() -> None:
    """Codes follow from the words by the contract's formula."""
    values, key = normal(4 * BLOCK), a_key(9)
    whole, exponents = encoded("int8", values, key=key)
    raw = words(5, Purpose.PARAMS, 9, 2 * BLOCK)
    for i in (0, 1, 2, 1023, 1024, 4095):
        half = int(raw[i // 2]) >> (32 if i % 2 else 0) & 0xFFFFFFFF
        scaled = float(values[i]) * 2.0 ** int(exponents[i // BLOCK])
        assert whole[i] == np.floor(scaled + (half >> 8) * 2.0**-24)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@over_formats
def test_a_block_that_is_not_finite_is_nan_alone(name: str, bad: float) -> None:
    values, residual = normal(3 * BLOCK), np.full(3 * BLOCK, 0.25, np.float32)
    values[BLOCK + 5] = bad
    codes, exponents = encoded(name, values, residual)
    applied = decoded(name, codes, exponents)
    block, others = slice(BLOCK, 2 * BLOCK), np.r_[:BLOCK, 2 * BLOCK : 3 * BLOCK]
    assert (exponents == NOT_FINITE).tolist() == [False, True, False]
    assert not codes[block].any()
    assert np.isnan(applied[block]).all()
    assert not residual[block].any()
    np.testing.assert_array_equal(residual[others], values[others] + np.float32(0.25) - applied[others])


@over_formats
def test_a_sum_that_overflows_is_not_finite(name: str) -> None:
    values, residual = np.full(4, 3e38, np.float32), np.full(4, 3e38, np.float32)
    assert not np.isfinite(round_trip(name, values, residual)).any()
    assert not residual.any()


@over_formats
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-39, -1e-45])
def test_zeros_and_what_counts_as_zero(name: str, value: float) -> None:
    residual = np.full(7, np.float32(value))
    codes, exponents = encoded(name, np.full(7, np.float32(value)), residual)
    assert exponents.tolist() == [0]
    assert not codes.any()
    assert not residual.any()


@over_formats
@pytest.mark.parametrize("value", [2.0**-126, 1.5 * 2.0**-126, 3.4028235e38, -(2.0**127)])
def test_tiny_and_huge_blocks(name: str, value: float) -> None:
    values, residual = np.full(8, np.float32(value)), np.zeros(8, np.float32)
    applied = round_trip(name, values, residual)
    assert -126 <= encoded(name, values)[1][0] <= 126
    assert np.isfinite(residual).all()
    # The largest float32 is rounded up to infinity, with no residual.
    finite = np.isfinite(applied)
    assert finite.all() or abs(value) > 3.39e38
    error = 1.0 if abs(value) < 1e-37 else 2.0**-5.9
    assert (np.abs(applied.astype(np.float64) - values)[finite] <= error * abs(values[0])).all()


@given(st.integers(0, 2**64 - 1), st.sampled_from(Purpose), st.integers(0, 2**40), st.integers(1, 50))
def test_random_words_are_those_of_the_stream(seed: int, purpose: Purpose, index: int, count: int) -> None:
    out = np.zeros(count, np.uint64)
    codecs.random_words(np.array([seed, purpose, index], np.uint64), out)
    np.testing.assert_array_equal(out, words(seed, purpose, index, count))
