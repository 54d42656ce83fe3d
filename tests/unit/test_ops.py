"""Every op equals its formula in float64; gradients equal finite differences; a loop allocates nothing."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles import tree_fold

from ddpgd import optim
from ddpgd.kernels.reference import Reference
from ddpgd.model import PIXEL_MEAN, PIXEL_STD, MultilayerPerceptron
from ddpgd.params import BLOCK, initialise
from ddpgd.tail import TAIL_WORDS, Tail

Array = NDArray[Any]

ROWS = (1, 31, 64, 129)
WIDTHS = ((1, 1), (17, 5), (50, 33))
DTYPES = (np.float32, np.float64)
ACTIVATIONS = ("relu", "tanh", "sigmoid", "identity")
LOSSES = ("cross-entropy", "mse")
FORWARD: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "identity": lambda z: z,
}
SLOPE_OF_OUTPUT: dict[str, Callable[[Array], Array]] = {
    "relu": lambda a: (a > 0).astype(np.float64),
    "tanh": lambda a: 1 - a**2,
    "sigmoid": lambda a: a * (1 - a),
    "identity": np.ones_like,
}

over_shapes = pytest.mark.parametrize(
    ("rows", "num_inputs", "num_outputs"), [(rows, *widths) for rows in ROWS for widths in WIDTHS]
)
over_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
over_rows = pytest.mark.parametrize("rows", ROWS)


@pytest.fixture
def ops() -> Reference:
    return Reference()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def close(got: Array, wanted: Array, terms: int = 1) -> None:
    """Equal but for rounding: a few units in the last place for each of `terms` that were added, of the largest."""
    unit = np.finfo(got.dtype).eps
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=0, atol=8 * unit * np.sqrt(terms) * scale)


def draw(rng: np.random.Generator, dtype: type, *shape: int) -> tuple[Array, Array]:
    """Standard normal values, and the same in float64."""
    values = rng.standard_normal(shape).astype(dtype)
    return values, values.astype(np.float64)


def nans(dtype: type, *shape: int) -> Array:
    return np.full(shape, np.nan, dtype)


@over_dtypes
@over_rows
def test_gather_normalise(ops: Reference, rng: np.random.Generator, rows: int, dtype: type) -> None:
    images = rng.integers(0, 256, (200, 21), dtype=np.uint8)
    labels = rng.integers(0, 10, 200, dtype=np.uint8)
    indices = rng.permutation(200)[:rows]
    x, y = nans(dtype, rows, 21), np.full(rows, -1, np.int64)
    ops.gather_normalise(images, labels, indices, PIXEL_MEAN, PIXEL_STD, x, y)
    close(x, (images[indices] / 255.0 - PIXEL_MEAN) / PIXEL_STD)
    np.testing.assert_array_equal(y, labels[indices])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@over_dtypes
@over_shapes
def test_dense_forward(
    ops: Reference,
    rng: np.random.Generator,
    rows: int,
    num_inputs: int,
    num_outputs: int,
    dtype: type,
    activation: str,
) -> None:
    (x, x64), (weight, weight64) = draw(rng, dtype, rows, num_inputs), draw(rng, dtype, num_inputs, num_outputs)
    bias, bias64 = draw(rng, dtype, num_outputs)
    out = nans(dtype, rows, num_outputs)
    ops.dense_forward(x, weight, bias, activation, out)
    close(out, FORWARD[activation](x64 @ weight64 + bias64), num_inputs)


@over_dtypes
@over_shapes
def test_dense_backward_params(
    ops: Reference, rng: np.random.Generator, rows: int, num_inputs: int, num_outputs: int, dtype: type
) -> None:
    (x, x64), (dout, dout64) = draw(rng, dtype, rows, num_inputs), draw(rng, dtype, rows, num_outputs)
    dweight, dbias = nans(dtype, num_inputs, num_outputs), nans(dtype, num_outputs)
    ops.dense_backward_params(x, dout, dweight, dbias)
    close(dweight, x64.T @ dout64, rows)
    close(dbias, dout64.sum(axis=0), rows)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@over_dtypes
@over_shapes
def test_dense_backward_input(
    ops: Reference,
    rng: np.random.Generator,
    rows: int,
    num_inputs: int,
    num_outputs: int,
    dtype: type,
    activation: str,
) -> None:
    x = FORWARD[activation](rng.standard_normal((rows, num_inputs))).astype(dtype)
    (dout, dout64), (weight, weight64) = draw(rng, dtype, rows, num_outputs), draw(rng, dtype, num_inputs, num_outputs)
    dx = nans(dtype, rows, num_inputs)
    ops.dense_backward_input(dout, weight, x, activation, dx)
    close(dx, dout64 @ weight64.T * SLOPE_OF_OUTPUT[activation](x.astype(np.float64)), num_outputs)


@over_dtypes
@over_rows
def test_cross_entropy(ops: Reference, rng: np.random.Generator, rows: int, dtype: type) -> None:
    logits, logits64 = draw(rng, dtype, rows, 10)
    labels = rng.integers(0, 10, rows)
    dlogits, tail = nans(dtype, rows, 10), np.full(TAIL_WORDS, -5, dtype)
    ops.cross_entropy(logits, labels, dlogits, tail)
    exponentials = np.exp(logits64)
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    close(dlogits, softmax - np.eye(10)[labels])
    close(tail[Tail.LOSS_SUM], -np.log(softmax[np.arange(rows), labels]).sum(), rows)
    assert tail[Tail.CORRECT] == np.count_nonzero(logits64.argmax(axis=1) == labels)
    assert tail[Tail.SAMPLES] == rows
    assert (tail[Tail.NON_FINITE :] == -5).all()


@over_dtypes
@over_rows
def test_mean_squared_error(ops: Reference, rng: np.random.Generator, rows: int, dtype: type) -> None:
    logits, logits64 = draw(rng, dtype, rows, 10)
    labels = rng.integers(0, 10, rows)
    dlogits, tail = nans(dtype, rows, 10), np.full(TAIL_WORDS, -5, dtype)
    ops.mean_squared_error(logits, labels, dlogits, tail)
    differences = logits64 - np.eye(10)[labels]
    close(dlogits, 2 * differences / 10)
    close(tail[Tail.LOSS_SUM], (differences**2).mean(axis=1).sum(), rows)
    assert tail[Tail.CORRECT] == np.count_nonzero(logits64.argmax(axis=1) == labels)
    assert tail[Tail.SAMPLES] == rows
    assert (tail[Tail.NON_FINITE :] == -5).all()


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
def test_of_equal_largest_logits_the_first_counts(ops: Reference, loss: str) -> None:
    logits, labels = np.zeros((3, 4), np.float32), np.array([0, 1, 0])
    tail = np.zeros(TAIL_WORDS, np.float32)
    getattr(ops, loss)(logits, labels, np.empty_like(logits), tail)
    assert tail[Tail.CORRECT] == 2


@over_dtypes
@pytest.mark.parametrize("size", [1e4, 1e30, 1e38])
def test_huge_logits_neither_overflow_nor_warn(ops: Reference, size: float, dtype: type) -> None:
    logits = np.array([[size, -size, 0], [-size, size, 0], [size, size, 0]], dtype)
    dlogits, tail = nans(dtype, 3, 3), np.zeros(TAIL_WORDS, dtype)
    ops.cross_entropy(logits, np.array([0, 1, 2]), dlogits, tail)
    np.testing.assert_array_equal(dlogits, np.array([[0, 0, 0], [0, 0, 0], [0.5, 0.5, -1]], dtype))
    assert tail[Tail.LOSS_SUM] == pytest.approx(size + np.log(2), rel=1e-6)


@over_dtypes
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_saturated_activations_reach_their_limits_and_pass_no_gradient(
    ops: Reference, size: float, activation: str, dtype: type
) -> None:
    x, one, zero = np.array([[size], [-size]], dtype), np.ones((1, 1), dtype), np.zeros(1, dtype)
    out, dx = nans(dtype, 2, 1), nans(dtype, 2, 1)
    ops.dense_forward(x, one, zero, activation, out)
    np.testing.assert_array_equal(out[:, 0], [1, -1 if activation == "tanh" else 0])
    ops.dense_backward_input(np.ones((2, 1), dtype), one, out, activation, dx)
    np.testing.assert_array_equal(dx, 0)


@over_dtypes
@pytest.mark.parametrize("target", ["left", "right", "other"])
def test_add_into_either_side_or_elsewhere(ops: Reference, rng: np.random.Generator, target: str, dtype: type) -> None:
    (left, left64), (right, right64), other = draw(rng, dtype, 1000), draw(rng, dtype, 1000), nans(dtype, 1000)
    out = {"left": left, "right": right, "other": other}[target]
    ops.add(left, right, out)
    np.testing.assert_array_equal(out, (left64 + right64).astype(dtype))


@over_dtypes
@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4, 5, 7, 8, 13, 196])
def test_squared_norm_is_the_canonical_tree_over_blocks(
    ops: Reference, rng: np.random.Generator, num_blocks: int, dtype: type
) -> None:
    # Small whole numbers times a power of two: each block's sum is exact in any order, that of the blocks is not.
    whole = rng.integers(-40, 40, (num_blocks, BLOCK)).astype(dtype)
    blocks = whole * 2.0 ** rng.integers(-9, 9, (num_blocks, 1)).astype(dtype)
    sums = [np.sum(block.astype(np.float64) ** 2).astype(dtype) for block in blocks]
    assert ops.squared_norm(blocks.reshape(-1)) == tree_fold(sums)


def test_squared_norm_would_notice_another_order(rng: np.random.Generator) -> None:
    sums = (rng.integers(1, 2**20, 196) * 2.0 ** rng.integers(-9, 9, 196)).astype(np.float32)
    in_line = np.float32(0)
    for value in sums:
        in_line += value
    assert tree_fold(list(sums)) != in_line


def _calls(ops: Reference, rng: np.random.Generator) -> dict[str, tuple[Callable[..., Any], list[Any], set[int]]]:
    """Each op with arguments, and the positions of those that it may change."""

    def real(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    def tail() -> Array:
        return np.zeros(TAIL_WORDS, np.float32)

    images, labels = rng.integers(0, 256, (9, 4), dtype=np.uint8), rng.integers(0, 3, 9, dtype=np.uint8)
    classes = labels[:5].astype(np.int64)
    return {
        "gather_normalise": (
            ops.gather_normalise,
            [images, labels, np.arange(5), 0.1, 0.3, real(5, 4), np.zeros(5, np.int64)],
            {5, 6},
        ),
        "dense_forward": (ops.dense_forward, [real(5, 4), real(4, 3), real(3), "tanh", real(5, 3)], {4}),
        "dense_backward_params": (ops.dense_backward_params, [real(5, 4), real(5, 3), real(4, 3), real(3)], {2, 3}),
        "dense_backward_input": (
            ops.dense_backward_input,
            [real(5, 3), real(4, 3), real(5, 4), "sigmoid", real(5, 4)],
            {4},
        ),
        "cross_entropy": (ops.cross_entropy, [real(5, 3), classes, real(5, 3), tail()], {2, 3}),
        "mean_squared_error": (ops.mean_squared_error, [real(5, 3), classes, real(5, 3), tail()], {2, 3}),
        "add": (ops.add, [real(9), real(9), real(9)], {2}),
        "squared_norm": (ops.squared_norm, [real(3 * BLOCK)], set()),
        "sgd": (ops.sgd, [real(9), real(9), 0.1, 0.5, 0.01], {0}),
        "momentum": (ops.momentum, [real(9), real(9), real(9), 0.1, 0.5, 0.01, 0.9], {0, 2}),
        "adam": (
            ops.adam,
            [real(9), real(9), real(9), real(9) ** 2, 0.1, 0.5, 0.01, 0.9, 0.999, 1e-8, 3],
            {0, 2, 3},
        ),
    }


@pytest.mark.parametrize("name", list(_calls(Reference(), np.random.default_rng())))
def test_an_op_changes_what_its_contract_names_and_nothing_else(
    ops: Reference, rng: np.random.Generator, name: str
) -> None:
    op, arguments, outputs = _calls(ops, rng)[name]
    before = [np.copy(argument) for argument in arguments]
    op(*arguments)
    changed = {position for position, was in enumerate(before) if not np.array_equal(arguments[position], was)}
    assert changed == outputs


def _network(
    activation: str, loss: str, hidden: tuple[int, ...], max_rows: int, dtype: type
) -> tuple[MultilayerPerceptron, Array]:
    model = MultilayerPerceptron(Reference(), (6, *hidden, 4), activation, loss, max_rows, dtype)
    params = np.zeros(model.layout.size, dtype)
    rng = np.random.default_rng(11)
    for view in model.layout.views(params):
        view[...] = rng.standard_normal(view.shape) * 0.7
    return model, params


@pytest.mark.parametrize("hidden", [(), (5,), (5, 3)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_of_a_network_equals_finite_differences(
    rng: np.random.Generator, activation: str, loss: str, hidden: tuple[int, ...]
) -> None:
    model, params = _network(activation, loss, hidden, 9, np.float64)
    num_rows = model.set_inputs(rng.standard_normal((7, 6)), rng.integers(0, 4, 7))
    grads, tail = np.zeros(model.layout.size), np.zeros(TAIL_WORDS)
    model.gradient(params, num_rows, grads, tail)

    def loss_sum() -> float:
        model.loss(params, num_rows, tail)
        return float(tail[Tail.LOSS_SUM])

    step, numeric = 1e-5, np.zeros_like(grads)
    for tensor in model.layout.tensors:
        for position in range(tensor.start, tensor.start + tensor.size):
            params[position] += step
            above = loss_sum()
            params[position] -= 2 * step
            below = loss_sum()
            params[position] += step
            numeric[position] = (above - below) / (2 * step)
    assert np.abs(grads).max() > 0.1
    np.testing.assert_allclose(grads, numeric, rtol=1e-7, atol=1e-8)


def test_rows_beyond_the_batch_play_no_part(rng: np.random.Generator) -> None:
    model, params = _network("relu", "cross-entropy", (5,), 9, np.float32)
    x, labels = rng.standard_normal((4, 6)), rng.integers(0, 4, 4)
    results = []
    for rubbish in (0.0, np.nan):
        model.set_inputs(np.full((9, 6), rubbish), np.zeros(9, np.int64))
        grads, tail = np.zeros(model.layout.size, np.float32), np.zeros(TAIL_WORDS, np.float32)
        model.gradient(params, model.set_inputs(x, labels), grads, tail)
        results.append((grads, tail))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_non_finite_tensor_names_the_first() -> None:
    model, params = _network("relu", "mse", (5,), 9, np.float32)
    assert model.non_finite_tensor(params) == ""
    weight2, bias1 = model.layout.tensors[2], model.layout.tensors[1]
    weight2.view(params)[1, 1] = np.inf
    assert model.non_finite_tensor(params) == "dense2.weight"
    bias1.view(params)[0] = np.nan
    assert model.non_finite_tensor(params) == "dense1.bias"


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_second_step_allocates_nothing(rng: np.random.Generator, activation: str, loss: str, optimizer: str) -> None:
    ops, rows = Reference(), 1024
    model = MultilayerPerceptron(ops, (300, 40, 30, 10), activation, loss, rows)
    params = initialise(model.layout, "he", seed=1)
    rule = optim.make(optimizer, ops, model.layout.size, weight_decay=1e-4, momentum=0.9)
    images, labels = rng.integers(0, 256, (2000, 300), dtype=np.uint8), rng.integers(0, 10, 2000, dtype=np.uint8)
    indices = rng.permutation(2000)[:rows]
    grads, tail = np.zeros(model.layout.size, np.float32), np.zeros(TAIL_WORDS, np.float32)

    def step(number: int) -> None:
        model.gradient(params, model.load(images, labels, indices), grads, tail)
        ops.squared_norm(grads)
        rule.update(params, grads, 0.01, 1 / rows, number)

    step(1)
    tracemalloc.start()
    try:
        step(2)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # NumPy buffers what it casts or broadcasts, np.getbufsize() elements at most; every array of the step is larger.
    smallest = min(rows * 10 * 4, model.layout.size * 4)
    assert np.getbufsize() * 4 < smallest
    assert peak < smallest
    assert kept < 1024
