"""The laws that every backend's `wire` obeys: places and sums bit for bit, low-rank products as in float64.

Wires are float32 whatever the precision. A folder of tests that imports * from here supplies the fixture `bench`, as for
`op_laws`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.kernels.philox import Purpose, words
from op_laws import Bench
from oracles import bits, uneven

Array = NDArray[Any]

LENGTHS = (1, 31, 1000, 1024, 1029)
LARGE = 1_050_000
"""Above what all thread blocks that count digits take in one turn."""

# rows, columns, columns of the narrow factors
MATRICES = [
    (1, 1, 1),
    (7, 33, 2),
    (8, 32, 4),
    (9, 31, 5),
    (33, 300, 3),
    (300, 257, 1),
    (784, 32, 2),
    (128, 10, 8),
    (40, 65, 32),
]
# rows, columns: fewer rows than columns are dependent
NARROW = [(1, 1), (2, 2), (31, 3), (33, 4), (784, 2), (1000, 8), (1025, 5), (64, 32), (3000, 32)]

over_matrices = pytest.mark.parametrize(("num_rows", "num_columns", "width"), MATRICES)
over_velocities = pytest.mark.parametrize("has_velocity", [False, True])


def _zeros(rng: np.random.Generator, size: int) -> Array:
    """Few that are not 0, and zeros of both signs."""
    signed = np.where(rng.random(size) < 0.5, np.float32(-0.0), np.float32(0))
    return np.where(rng.random(size) < 0.05, rng.standard_normal(size), signed)


def _not_finite(rng: np.random.Generator, size: int) -> Array:
    return np.where(rng.random(size) < 0.1, rng.choice([np.nan, np.inf, -np.inf], size), rng.standard_normal(size))


KINDS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "uneven": lambda _, size: uneven(4, size),
    "ties": lambda rng, size: rng.integers(-3, 4, size),
    "near ties": lambda rng, size: 1 + rng.integers(0, 5, size) * 2.0**-23,
    "equal": lambda _, size: np.full(size, -0.75),
    "zeros": _zeros,
    "nothing": lambda _, size: np.zeros(size),
    "denormals": lambda rng, size: rng.integers(-2000, 2001, size) * 2.0**-149,
    "not finite": _not_finite,
}


@pytest.mark.parametrize("count", [1, 4, 31, 1000])
@pytest.mark.parametrize(("seed", "index"), [(0, 0), (5, 3), (2**64 - 1, 2**40)])
def test_random_words(bench: Bench, count: int, seed: int, index: int) -> None:
    out = bench.nans((count,), np.uint64)
    key = bench.ops.from_host(np.array([seed, Purpose.PERMUTATION, index], np.uint64))
    bench.ops.wire.random_words(key, out)
    np.testing.assert_array_equal(bench.ops.to_host(out), words(seed, Purpose.PERMUTATION, index, count))


@over_velocities
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("start", [0, 1])
def test_accumulate(bench: Bench, length: int, has_velocity: bool, start: int) -> None:
    """In windows, which may begin anywhere."""
    values, velocity, kept = (uneven(seed, length + 9) for seed in (1, 2, 3))
    there = [bench.ops.from_host(vector.copy()) for vector in (values, velocity, kept)]
    windows = [vector[start : start + length] for vector in there]
    bench.ops.wire.accumulate(windows[0], 0.3, windows[1] if has_velocity else None, 0.7, windows[2])
    added = values * np.float32(0.3)
    if has_velocity:
        velocity[start : start + length] = (velocity * np.float32(0.7) + added)[start : start + length]
        added = velocity
    kept[start : start + length] = (kept + added)[start : start + length]
    for held, wanted in zip(there, (values, velocity, kept), strict=True):
        np.testing.assert_array_equal(bits(bench.ops.to_host(held)), bits(wanted))


def _largest(kept: Array, count: int) -> Array:
    """Places of the largest magnitudes, by sorting; NaN is larger than all, and of equals the first come first."""
    magnitudes = np.where(np.isnan(kept), np.inf, np.abs(kept.astype(np.float64)))
    order = np.lexsort((np.arange(kept.size), -magnitudes, ~np.isnan(kept)))
    return np.sort(order[:count]).astype(np.uint32)


def _select(bench: Bench, kept: Array, count: int, velocity: Array | None) -> None:
    """Twice, the second time of what the first left, and one fewer: nothing of a search is left for the next."""
    ops = bench.ops
    kept_there = ops.from_host(kept.copy())
    velocity_there = None if velocity is None else ops.from_host(velocity.copy())
    for number in (count, max(1, count - 1)):
        indices, values = bench.nans((number,), np.uint32), bench.nans((number,), np.float32)
        ops.wire.select(kept_there, velocity_there, indices, values)
        wanted = _largest(kept, number)
        np.testing.assert_array_equal(ops.to_host(indices), wanted)
        np.testing.assert_array_equal(bits(ops.to_host(values)), bits(kept[wanted]))
        kept[wanted] = 0
        np.testing.assert_array_equal(bits(ops.to_host(kept_there)), bits(kept))
        if velocity is not None:
            velocity[wanted] = 0
            np.testing.assert_array_equal(bits(ops.to_host(velocity_there)), bits(velocity))


@over_velocities
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 1000, 1024, 5000])
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 1])
def test_select(bench: Bench, kind: str, size: int, share: float, has_velocity: bool) -> None:
    kept = KINDS[kind](np.random.default_rng(size), size).astype(np.float32)
    _select(bench, kept, max(1, int(share * size)), uneven(9, size) if has_velocity else None)


@pytest.mark.parametrize("kind", ["uneven", "ties", "zeros"])
@pytest.mark.parametrize("share", [0.001, 0.6])
def test_select_of_many(bench: Bench, kind: str, share: float) -> None:
    kept = KINDS[kind](np.random.default_rng(1), 130_001).astype(np.float32)
    _select(bench, kept, int(share * kept.size), uneven(9, kept.size))


def test_select_of_more_than_blocks_take_in_one_turn(bench: Bench) -> None:
    _select(bench, uneven(2, LARGE), 5000, None)


def test_selections_of_several_sizes_do_not_disturb_each_other(bench: Bench) -> None:
    for size in (5000, 100, 5000, 2048):
        _select(bench, uneven(size, size), size // 3, None)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (255, 5000), (257, 300), (3000, 3000)])
def test_scatter_add(bench: Bench, count: int, size: int) -> None:
    places = np.random.default_rng(5).permutation(size)[:count].astype(np.uint32)
    values, out = uneven(6, count), uneven(7, size)
    there = bench.ops.from_host(out.copy())
    bench.ops.wire.scatter_add(bench.ops.from_host(places), bench.ops.from_host(values), 0.3, there)
    out[places] += values * np.float32(0.3)
    np.testing.assert_array_equal(bits(bench.ops.to_host(there)), bits(out))


class Matrices:
    """A matrix that is a window of a vector, and its narrow factors, where the backend computes and in float64."""

    def __init__(self, bench: Bench, num_rows: int, num_columns: int, width: int) -> None:
        rng = np.random.default_rng(num_rows)
        shapes = (num_rows, num_columns), (num_rows, width), (num_columns, width)
        self.matrix, self.left, self.right = (
            rng.standard_normal(shape).astype(np.float32).astype(np.float64) for shape in shapes
        )
        self.vector = bench.vector(np.concatenate([[np.nan] * 3, self.matrix.ravel(), [np.nan] * 2]))
        self.window = self.vector[3 : 3 + self.matrix.size].reshape(self.matrix.shape)


@over_matrices
def test_project(bench: Bench, num_rows: int, num_columns: int, width: int) -> None:
    given, left = Matrices(bench, num_rows, num_columns, width), bench.nans((num_rows, width), np.float32)
    bench.ops.wire.project(given.window, bench.vector(given.right), left)
    bench.check("project", left, given.matrix @ given.right, num_columns)


@over_matrices
def test_project_back(bench: Bench, num_rows: int, num_columns: int, width: int) -> None:
    given, right = Matrices(bench, num_rows, num_columns, width), bench.nans((num_columns, width), np.float32)
    bench.ops.wire.project_back(given.window, bench.vector(given.left), right)
    bench.check("project_back", right, given.matrix.T @ given.left, num_rows)


@over_matrices
@pytest.mark.parametrize("factor", [-1.0, 0.3])
def test_add_product(bench: Bench, num_rows: int, num_columns: int, width: int, factor: float) -> None:
    given = Matrices(bench, num_rows, num_columns, width)
    bench.ops.wire.add_product(bench.vector(given.left), bench.vector(given.right), factor, given.window)
    bench.check("add_product", given.window, given.matrix + factor * given.left @ given.right.T, width)
    around = bench.values(given.vector)
    assert np.isnan(around[:3]).all()
    assert np.isnan(around[-2:]).all()


def _orthonormalised(bench: Bench, matrix: Array, spare: Array | None = None) -> Array:
    there = bench.vector(matrix)
    bench.ops.wire.orthonormalise(there, None if spare is None else bench.vector(spare))
    return bench.values(there)


@pytest.mark.parametrize(("num_rows", "width"), NARROW)
@pytest.mark.parametrize("likeness", [0, 20])
def test_orthonormalise_keeps_the_span(bench: Bench, num_rows: int, width: int, likeness: float) -> None:
    """Independent columns, and some that are nearly the same one."""
    rng = np.random.default_rng(num_rows)
    matrix = rng.standard_normal((num_rows, width)) + likeness * rng.standard_normal((num_rows, 1))
    columns = _orthonormalised(bench, matrix)
    assert np.abs(columns.T @ columns - np.eye(width)).max() < 1e-5
    bench.check("orthonormalise", bench.vector(columns.T @ columns), np.eye(width), num_rows)
    left_over = matrix - columns @ (columns.T @ matrix)
    assert np.abs(left_over).max() < 1e-5 * np.abs(matrix).max()
    assert (np.diag(columns.T @ matrix) > 0).all()


@pytest.mark.parametrize("num_rows", [5, 300, 1025])
@pytest.mark.parametrize("dependent", [1, 3])
@pytest.mark.parametrize("has_spare", [False, True])
def test_orthonormalise_replaces_columns_that_are_dependent(
    bench: Bench, num_rows: int, dependent: int, has_spare: bool
) -> None:
    """Column 1, a multiple of the one before it; or the last one, a mixture of three. All others stay independent."""
    rng = np.random.default_rng(num_rows)
    matrix, spare = rng.standard_normal((2, num_rows, 4))
    matrix[:, dependent] = matrix[:, :dependent] @ rng.standard_normal(dependent)
    columns = _orthonormalised(bench, matrix[:, : dependent + 1], spare[:, : dependent + 1] if has_spare else None)
    instead = spare[:, dependent].astype(np.float32) if has_spare else 0
    np.testing.assert_array_equal(columns[:, dependent], np.broadcast_to(instead, num_rows))
    others = columns[:, :dependent]
    assert np.abs(others.T @ others - np.eye(dependent)).max() < 1e-5


@pytest.mark.parametrize("has_spare", [False, True])
def test_orthonormalise_replaces_columns_of_zeros(bench: Bench, has_spare: bool) -> None:
    spare = np.random.default_rng(1).standard_normal((50, 3)) if has_spare else None
    columns = _orthonormalised(bench, np.zeros((50, 3)), spare)
    np.testing.assert_array_equal(columns, np.zeros((50, 3)) if spare is None else spare.astype(np.float32))


def test_orthonormalise_goes_on_after_a_column_of_zeros(bench: Bench) -> None:
    matrix = np.random.default_rng(2).standard_normal((40, 3))
    matrix[:, 1] = 0
    columns = _orthonormalised(bench, matrix)
    assert np.abs(columns.T @ columns - np.diag([1, 0, 1])).max() < 1e-5


@pytest.mark.parametrize("least", [0.5, 2])
def test_orthonormalise_keeps_a_column_of_which_enough_is_left(bench: Bench, least: float) -> None:
    """On both sides of 2^-10 of the column."""
    matrix = np.zeros((9, 2))
    matrix[0] = 1
    matrix[5, 1] = least / 1024
    np.testing.assert_array_equal(
        _orthonormalised(bench, matrix)[:, 1], np.arange(9) == 5 if least > 1 else np.zeros(9)
    )


def test_captured_wires_do_what_they_do_uncaptured(bench: Bench) -> None:
    ops, wire = bench.ops, bench.ops.wire
    grads, spare = bench.vector(uneven(1, 3000)), bench.vector(uneven(2, 30, 3))
    results = []
    for capture in (lambda work: work, ops.capture):
        kept, velocity, out = (ops.zeros((3000,), np.float32) for _ in range(3))
        indices, values = ops.zeros((100,), np.uint32), ops.zeros((100,), np.float32)
        left, right = ops.zeros((100, 3), np.float32), bench.vector(uneven(3, 30, 3))
        matrix = kept.reshape(100, 30)

        def work(state: tuple[Array, ...] = (kept, velocity, indices, values, out, matrix, left, right)) -> None:
            kept, velocity, indices, values, out, matrix, left, right = state
            wire.accumulate(grads, 0.5, velocity, 0.9, kept)
            wire.select(kept, velocity, indices, values)
            wire.scatter_add(indices, values, 0.5, out)
            wire.project(matrix, right, left)
            wire.orthonormalise(left, None)
            wire.project_back(matrix, left, right)
            wire.orthonormalise(right, spare)
            wire.add_product(left, right, -1.0, matrix)

        replay = capture(work)
        for _ in range(3):
            replay()
        results.append([bits(ops.to_host(array)) for array in (kept, velocity, indices, values, out, left, right)])
    for plain, captured in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, captured)
