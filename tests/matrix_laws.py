"""The laws of updates of matrices, which every backend's ops obey: the formula in float64, by singular values.

A folder of tests that imports * from here supplies the fixture `bench`, as for `op_laws`.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.optim.rules import RULES
from op_laws import Bench

Array = NDArray[Any]

MUON = RULES["muon"]
SHAPES = [(1, 1), (1, 7), (9, 1), (5, 5), (12, 9), (9, 12), (17, 50), (40, 33), (3, 400)]

over_shapes_of_matrices = pytest.mark.parametrize("shape", SHAPES, ids=str)


def orthogonalised(matrix: Array) -> Array:
    """Returns the matrix with other singular values: the published polynomial, five times, of those over their norm."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / (np.linalg.norm(values) + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


def wanted_matrix_update(
    params: Array, grads: Array, exp_avg: Array, weight_decay: float, lr: float, scale: float, beta: float = 0.95
) -> tuple[Array, Array]:
    """Returns params and exp_avg after an update, by the formula in the row of muon, in float64."""
    params, grads, exp_avg = (array.astype(np.float64) for array in (params, grads, exp_avg))
    names = {"g": scale * grads, "lr": lr, "weight_decay": weight_decay, "params": params, "exp_avg": exp_avg}
    names |= {"beta": beta, "K": params.shape[0], "N": params.shape[1]}
    exec(MUON.formula, {"orthogonalised": orthogonalised, "sqrt": np.sqrt, "max": max}, names)
    return params - names["change"], names["exp_avg"]


def matrices(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Returns params, grads and exp_avg."""
    params, grads, exp_avg = rng.standard_normal((3, *shape))
    return params, grads, 0.1 * exp_avg


def updated(
    bench: Bench, params: Array, grads: Array, exp_avg: Array, weight_decay: float, beta: float = 0.95, **control: float
) -> tuple[Array, Array, Array]:
    """Returns params, exp_avg and weights after an update by the backend; grads must stay as they are."""
    ops, shape = bench.ops, params.shape
    vector = bench.vector(params.reshape(-1))
    weights, there = ops.round_weights(vector), vector.reshape(shape)
    copy = there if weights is vector else weights.reshape(shape)
    sums, average = bench.vector(grads), bench.vector(exp_avg)
    ops.update_matrix(there, sums, average, bench.control(**control), weight_decay, beta, copy)
    np.testing.assert_array_equal(bench.values(sums), grads.astype(bench.ops.vector_dtype))
    return bench.values(there), bench.values(average), bench.values(copy)


@over_shapes_of_matrices
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3])
def test_updates_of_matrices(
    bench: Bench, rng: np.random.Generator, shape: tuple[int, int], weight_decay: float, size: float
) -> None:
    params, grads, exp_avg = matrices(rng, shape)
    given = params, size * grads, 0.5 * size * exp_avg
    got, average, weights = updated(bench, *given, weight_decay, LR=0.1, SCALE=0.5, APPLY=1)
    wanted, wanted_average = wanted_matrix_update(*given, weight_decay, 0.1, 0.5)
    # Small singular values grow by 3.4445^5, and so do their rounding errors.
    tolerance = 500 * bench.sum_eps
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * max(shape) ** 0.5)
    np.testing.assert_allclose(average, wanted_average, rtol=tolerance, atol=tolerance * size)
    np.testing.assert_array_equal(weights, got if bench.precision == "tf32" else bench.rounded(got))


@over_shapes_of_matrices
def test_an_update_of_a_matrix_that_is_not_applied_changes_nothing(
    bench: Bench, rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    params, grads, exp_avg = matrices(rng, shape)
    for gradient in (grads, np.full(shape, np.nan)):
        got, average, _ = updated(bench, params, gradient, exp_avg, 0.1, LR=0.1, SCALE=0.5, APPLY=0)
        np.testing.assert_array_equal(got, params.astype(bench.ops.vector_dtype))
        np.testing.assert_array_equal(average, exp_avg.astype(bench.ops.vector_dtype))


@pytest.mark.parametrize("shape", [(24, 24), (20, 60), (60, 20)], ids=str)
def test_singular_values_come_near_one_and_vectors_stay(
    bench: Bench, rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    """Singular values from 0.01 to 1, whatever they are, come into the published band around 1."""
    left, _, right = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    gradient = (left * np.geomspace(1, 0.01, min(shape))) @ right
    zeros = np.zeros(shape)
    got, _, _ = updated(bench, zeros, gradient, zeros, 0.0, LR=1.0, SCALE=1.0, APPLY=1)
    orthogonal = -got / (0.2 * max(shape) ** 0.5)
    values = np.linalg.svd(orthogonal)[1]
    assert 0.65 < values.min() < values.max() < 1.25
    along = left.T @ orthogonal @ right.T
    np.testing.assert_allclose(along, np.diag(np.diag(along)), atol=1e-3)
    assert (np.diag(along) > 0.65).all()
    assert np.linalg.norm(orthogonal - left @ right) < 0.35 * min(shape) ** 0.5


def test_a_matrix_without_a_gradient_only_decays(bench: Bench, rng: np.random.Generator) -> None:
    params, zeros = rng.standard_normal((6, 4)), np.zeros((6, 4))
    got, _, _ = updated(bench, params, zeros, zeros, 0.5, LR=0.1, SCALE=1.0, APPLY=1)
    np.testing.assert_allclose(got, 0.95 * params, rtol=1e-6)


def test_matrices_of_other_shapes_do_not_disturb_each_other(bench: Bench, rng: np.random.Generator) -> None:
    """Shapes of 700 and 900 elements, which take as many blocks."""
    given = {shape: matrices(rng, shape) for shape in ((35, 20), (20, 35), (30, 30))}
    results = [
        {shape: updated(bench, *arrays, 0.1, LR=0.1, SCALE=0.5, APPLY=1)[0] for shape, arrays in given.items()}
        for _ in range(2)
    ]
    for shape in given:
        np.testing.assert_array_equal(results[0][shape], results[1][shape])
