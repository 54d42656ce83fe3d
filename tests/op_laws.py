"""The laws that every backend's ops obey, over one table of shapes: each op equals its formula in float64.

A folder of tests that imports * from here supplies the fixture `bench`, a backend under test.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.kernels.dropout import Dropout, Rows
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import Purpose, sample_words
from ddpgd.kernels.words import (
    BLOCK,
    CONTROL_WORDS,
    CURSOR_WORDS,
    HISTORY_WORDS,
    RATE_WORDS,
    TAIL_WORDS,
    Control,
    Cursor,
    History,
    Policy,
    Tail,
)
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD
from ddpgd.optim.rules import ELEMENTWISE, Rule
from oracles import bits, from_bfloat16, to_bfloat16, tree_fold, uneven

Array = NDArray[Any]

# micro-batch, rows (more than a micro-batch: joined), inputs, outputs
SHAPES = [
    (1, 1, 1, 1),
    (31, 31, 17, 5),
    (32, 32, 32, 10),
    (33, 33, 50, 33),
    (127, 127, 33, 17),
    (128, 128, 96, 64),
    (129, 129, 20, 12),
    (1000, 1000, 9, 10),
    (32, 96, 17, 10),
    (31, 100, 33, 12),
    (128, 300, 40, 10),
    (64, 64, 784, 32),
]
ROWS = [(1, 1), (31, 31), (32, 32), (33, 33), (127, 127), (128, 128), (129, 129), (1000, 1000), (31, 100), (300, 700)]
LENGTHS = (1, 31, 32, 33, 127, 128, 129, 1000)
ACTIVATIONS = ("relu", "tanh", "sigmoid", "identity")
LOSSES = ("cross_entropy", "mean_squared_error")
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
ERRORS: dict[tuple[str, str, str], float] = {}
"""Largest error seen, by op, shape and precision: relative to the largest element of the result."""

over_shapes = pytest.mark.parametrize(
    ("micro_batch", "rows", "num_inputs", "num_outputs"), SHAPES, ids=lambda value: str(value)
)
over_rows = pytest.mark.parametrize(("micro_batch", "rows"), ROWS)
over_losses = pytest.mark.parametrize("loss", LOSSES)
over_targets = pytest.mark.parametrize(
    ("loss", "smoothing"), [*((loss, 0.0) for loss in LOSSES), ("cross_entropy", 0.1), ("cross_entropy", 0.75)]
)
over_lengths = pytest.mark.parametrize("length", LENGTHS)
over_rules = pytest.mark.parametrize("rule", ELEMENTWISE.values(), ids=ELEMENTWISE)


class Bench:
    """A backend under test. Arrays go there and come back; `precision` is what products take in."""

    def __init__(self, ops: Ops, precision: str) -> None:
        self.ops = ops
        self.precision = precision
        self.sum_eps = float(np.finfo(ops.vector_dtype).eps)
        self.activation_eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(precision, self.sum_eps)

    def rounded(self, values: Array) -> Array:
        """The nearest float64 values that products take in without rounding them."""
        if self.precision == "bfloat16":
            return from_bfloat16(to_bfloat16(values.astype(np.float32))).astype(np.float64)
        if self.precision == "tf32":
            return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(float)
        return values.astype("f2" if self.precision == "float16" else self.ops.vector_dtype).astype(np.float64)

    def activations(self, values: Array) -> Array:
        """`values`, which `rounded` made, where the backend computes, as activations are stored."""
        if self.precision == "bfloat16":
            return self.ops.from_host(to_bfloat16(values.astype(np.float32)))
        return self.ops.from_host(values.astype(self.ops.activation_dtype))

    def vector(self, values: Array) -> Array:
        return self.ops.from_host(values.astype(self.ops.vector_dtype))

    def nans(self, shape: tuple[int, ...], dtype: Any) -> Array:
        array = np.empty(shape, dtype)
        array.view(np.uint8).fill(0xFF)
        return self.ops.from_host(array)

    def values(self, array: Array) -> Array:
        """The values of a backend's array, in float64."""
        host = np.array(self.ops.to_host(array))
        return (from_bfloat16(host) if host.dtype == np.uint16 else host).astype(np.float64)

    def check(self, op: str, got: Array, wanted: Array, terms: int = 1, eps: float | None = None) -> None:
        """Equal but for rounding: a few units of the sum's type for each of `terms`, and one of the result's own."""
        held = self.values(got)
        scale = max(1.0, float(np.abs(wanted).max(initial=0)))
        error = float(np.abs(held - wanted).max(initial=0)) / scale
        assert np.isfinite(held).all()
        key = op, "x".join(map(str, np.shape(wanted))), self.precision
        ERRORS[key] = max(ERRORS.get(key, 0.0), error)
        assert error <= 8 * self.sum_eps * np.sqrt(terms) + (eps or 0.0)

    def control(self, **set_words: float) -> Array:
        control = np.zeros(CONTROL_WORDS)
        control[[Control.LOSS_SCALE, Control.LR_FACTOR]] = 1
        for name, value in set_words.items():
            control[Control[name]] = value
        return self.ops.from_host(control)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def _groups(rows: int, micro_batch: int) -> list[slice]:
    return [slice(start, min(start + micro_batch, rows)) for start in range(0, rows, micro_batch)]


@over_rows
@pytest.mark.parametrize("width", [0, 21, 48])
def test_gather_normalise(bench: Bench, rng: np.random.Generator, micro_batch: int, rows: int, width: int) -> None:
    del micro_batch
    images = rng.integers(0, 256, (1100, width), dtype=np.uint8)
    labels = rng.integers(0, 10, 1100, dtype=np.uint8)
    order = rng.permutation(1100)
    cursor = np.zeros(CURSOR_WORDS, np.int64)
    cursor[Cursor.FIRST] = 40
    ops = bench.ops
    x, y = bench.nans((rows, width), ops.activation_dtype), bench.nans((rows,), np.int64)
    there = [ops.from_host(array) for array in (images, labels, order, cursor)]
    ops.gather_normalise(*there, 7, PIXEL_MEAN, PIXEL_STD, x, y)
    wanted = order[47 : 47 + rows]
    bench.check("gather_normalise", x, (images[wanted] / 255.0 - PIXEL_MEAN) / PIXEL_STD, eps=bench.activation_eps)
    np.testing.assert_array_equal(ops.to_host(y), labels[wanted])


@pytest.mark.parametrize("probability", [0.5, 0.2])
@pytest.mark.parametrize(("rows", "first", "width"), [(1, 0, 1), (33, 0, 16), (40, 0, 100), (31, 5, 30), (7, 32, 17)])
@pytest.mark.parametrize("in_place", [True, False])
def test_dropout_of_windows_of_columns(
    bench: Bench, rng: np.random.Generator, rows: int, first: int, width: int, probability: float, in_place: bool
) -> None:
    """Bit for bit, whatever rows and columns stand beside; the columns beside them stay as they are."""
    ops, drop, epoch = bench.ops, Dropout(9, 2, probability), 6
    values = bench.rounded(rng.standard_normal((rows, width + 3)))
    order, cursor = rng.permutation(90), np.zeros(CURSOR_WORDS, np.int64)
    cursor[Cursor.FIRST], cursor[Cursor.EPOCH] = 11, epoch
    x = bench.activations(values)
    out = x if in_place else bench.nans((rows, width + 3), ops.activation_dtype)
    samples = Rows(ops.from_host(order), ops.from_host(cursor), 4)
    ops.dropout(x[:, 1:-2], samples, drop, first, out[:, 1:-2])
    words = sample_words(9, Purpose.DROPOUT, epoch, order[15 : 15 + rows], (first + width + 3) // 4, 2)
    draws = words.view(np.uint16)[:, first : first + width]
    factors = np.where(draws < drop.threshold, 0, drop.scale).astype(ops.vector_dtype)
    wanted = values[:, 1:-2].astype(ops.vector_dtype) * factors
    held = bench.values(out)
    np.testing.assert_array_equal(held[:, 1:-2], _stored(bench, wanted))
    np.testing.assert_array_equal(held[:, [0, -2, -1]], values[:, [0, -2, -1]] if in_place else np.nan)


def _forward(bench: Bench, x: Array, weight: Array, bias: Array, activation: str, micro_batch: int) -> Array:
    dtype = bench.ops.vector_dtype if activation == "identity" else bench.ops.activation_dtype
    out = bench.nans((len(x), weight.shape[1]), dtype)
    there = bench.activations(x), [bench.activations(weight)], [bench.vector(bias)]
    bench.ops.dense_forward(*there, activation, micro_batch, out)
    return out


@pytest.mark.parametrize("activation", ACTIVATIONS)
@over_shapes
def test_dense_forward(
    bench: Bench,
    rng: np.random.Generator,
    micro_batch: int,
    rows: int,
    num_inputs: int,
    num_outputs: int,
    activation: str,
) -> None:
    x, weight = (bench.rounded(rng.standard_normal(shape)) for shape in ((rows, num_inputs), (num_inputs, num_outputs)))
    bias = rng.standard_normal(num_outputs).astype(bench.ops.vector_dtype)
    out = _forward(bench, x, weight, bias, activation, micro_batch)
    eps = bench.activation_eps if activation != "identity" else 0.0
    bench.check("dense_forward", out, FORWARD[activation](x @ weight + bias), num_inputs, eps)
    if rows > micro_batch:
        for part in _groups(rows, micro_batch):
            alone = _forward(bench, x[part], weight, bias, activation, micro_batch)
            np.testing.assert_array_equal(bench.values(out)[part], bench.values(alone))


def _backward_params(bench: Bench, x: Array, dout: Array, micro_batch: int) -> tuple[Array, Array]:
    num_inputs, num_outputs = x.shape[1], dout.shape[1]
    size = -(-(num_inputs * num_outputs) // 32) * 32
    groups = len(_groups(len(x), micro_batch))
    rows = bench.nans((groups, size + num_outputs + 8), bench.ops.vector_dtype)
    dweight = rows[:, : num_inputs * num_outputs].reshape(groups, num_inputs, num_outputs)
    dbias = rows[:, size : size + num_outputs]
    bench.ops.dense_backward_params(bench.activations(x), bench.activations(dout), micro_batch, dweight, dbias)
    held = bench.values(rows)
    assert np.isnan(held[:, num_inputs * num_outputs : size]).all()
    assert np.isnan(held[:, size + num_outputs :]).all()
    return held[:, : num_inputs * num_outputs].reshape(groups, num_inputs, num_outputs), held[
        :, size : size + num_outputs
    ]


@over_shapes
def test_dense_backward_params(
    bench: Bench, rng: np.random.Generator, micro_batch: int, rows: int, num_inputs: int, num_outputs: int
) -> None:
    x, dout = (bench.rounded(rng.standard_normal((rows, width))) for width in (num_inputs, num_outputs))
    dweight, dbias = _backward_params(bench, x, dout, micro_batch)
    for number, part in enumerate(_groups(rows, micro_batch)):
        bench.check("dense_backward_params", bench.ops.from_host(dweight[number]), x[part].T @ dout[part], rows)
        bench.check("dense_backward_params", bench.ops.from_host(dbias[number]), dout[part].sum(axis=0), rows)
        if rows > micro_batch:
            alone = _backward_params(bench, x[part], dout[part], micro_batch)
            np.testing.assert_array_equal(dweight[number], alone[0][0])
            np.testing.assert_array_equal(dbias[number], alone[1][0])


def _backward_input(bench: Bench, dout: Array, weight: Array, x: Array, activation: str, micro_batch: int) -> Array:
    dx = bench.nans(x.shape, bench.ops.vector_dtype if activation == "identity" else bench.ops.activation_dtype)
    there = bench.activations(dout), [bench.activations(weight)], bench.activations(x)
    bench.ops.dense_backward_input(*there, activation, micro_batch, dx)
    return dx


@pytest.mark.parametrize("activation", ACTIVATIONS)
@over_shapes
def test_dense_backward_input(
    bench: Bench,
    rng: np.random.Generator,
    micro_batch: int,
    rows: int,
    num_inputs: int,
    num_outputs: int,
    activation: str,
) -> None:
    x = bench.rounded(FORWARD[activation](rng.standard_normal((rows, num_inputs))))
    dout = bench.rounded(rng.standard_normal((rows, num_outputs)))
    weight = bench.rounded(rng.standard_normal((num_inputs, num_outputs)))
    dx = _backward_input(bench, dout, weight, x, activation, micro_batch)
    wanted = dout @ weight.T * SLOPE_OF_OUTPUT[activation](x)
    eps = bench.activation_eps if activation != "identity" else 0.0
    bench.check("dense_backward_input", dx, wanted, num_outputs, eps)
    if rows > micro_batch:
        for part in _groups(rows, micro_batch):
            alone = _backward_input(bench, dout[part], weight, x[part], activation, micro_batch)
            np.testing.assert_array_equal(bench.values(dx)[part], bench.values(alone))


@pytest.mark.parametrize("activation", ACTIVATIONS[:-1])
@over_rows
def test_activation_backward(
    bench: Bench, rng: np.random.Generator, micro_batch: int, rows: int, activation: str
) -> None:
    """Windows of columns are filled; the columns beside them stay as they are."""
    del micro_batch
    x = bench.rounded(FORWARD[activation](rng.standard_normal((rows, 12))))
    dout = rng.standard_normal((rows, 7)).astype(bench.ops.vector_dtype).astype(np.float64)
    dx = bench.nans((rows, 9), bench.ops.activation_dtype)
    window = dx[:, 1:8]
    bench.ops.activation_backward(bench.vector(dout), bench.activations(x)[:, 3:10], activation, window)
    wanted = dout * SLOPE_OF_OUTPUT[activation](x[:, 3:10])
    held = bench.values(dx)
    assert np.isnan(held[:, [0, 8]]).all()
    bench.check("activation_backward", bench.activations(held[:, 1:8]), wanted, eps=bench.activation_eps)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (33, 50), (1000, 7)])
def test_copies_of_windows(bench: Bench, shape: tuple[int, int], dtype: type) -> None:
    ops, (num_rows, width) = bench.ops, shape
    values = np.arange(num_rows * (width + 5)).reshape(num_rows, -1).astype(dtype)
    out = ops.zeros((num_rows, width + 3), dtype)
    ops.copy(ops.from_host(values)[:, 2 : 2 + width], out[:, 1 : 1 + width])
    held = np.array(ops.to_host(out))
    np.testing.assert_array_equal(held[:, 1 : 1 + width], values[:, 2 : 2 + width])
    assert not held[:, 0].any()
    assert not held[:, 1 + width :].any()
    ops.copy(ops.from_host(values[0]), out.reshape(-1)[: width + 5] if num_rows > 1 else ops.zeros((width + 5,), dtype))
    assert num_rows == 1 or (np.array(ops.to_host(out)).reshape(-1)[: width + 5] == values[0]).all()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_layers_take_shards_in_windows_of_columns_with_the_same_bits(
    bench: Bench, rng: np.random.Generator, activation: str
) -> None:
    """Those that own shards of a layer are written, others not."""
    rows, num_inputs, num_outputs, ops = 50, 24, 12, bench.ops
    x = bench.rounded(FORWARD[activation](rng.standard_normal((rows, num_inputs))))
    dout = bench.rounded(rng.standard_normal((rows, num_outputs)))
    weight = bench.rounded(rng.standard_normal((num_inputs, num_outputs)))
    bias = rng.standard_normal(num_outputs).astype(ops.vector_dtype)
    wide_x, wide_dout = np.zeros((rows, num_inputs + 9)), np.zeros((rows, num_outputs + 4))
    wide_x[:, 5 : 5 + num_inputs], wide_dout[:, 2 : 2 + num_outputs] = x, dout
    there_x, there_dout = (
        bench.activations(wide_x)[:, 5 : 5 + num_inputs],
        bench.activations(wide_dout)[:, 2 : 2 + num_outputs],
    )
    out = bench.nans((rows, 2 * num_outputs + 7), ops.activation_dtype)
    weights, biases = [bench.activations(weight), bench.activations(-weight)], [bench.vector(bias), bench.vector(-bias)]
    ops.dense_forward(there_x, weights, biases, activation, 32, out[:, 3:-4])
    wanted = [bench.values(_forward(bench, x, one * weight, one * bias, activation, 32)) for one in (1, -1)]
    np.testing.assert_array_equal(bench.values(out)[:, 3:-4], np.hstack(wanted))
    assert np.isnan(bench.values(out)[:, [0, 1, 2, -4, -3, -2, -1]]).all()
    half = num_inputs // 2
    dx, parts = bench.nans((rows, num_inputs + 2), ops.activation_dtype), [weight[:half], weight[half:]]
    ops.dense_backward_input(there_dout, list(map(bench.activations, parts)), there_x, activation, 32, dx[:, 1:-1])
    inputs = x[:, :half], x[:, half:]
    both = zip(parts, inputs, strict=True)
    wanted = [bench.values(_backward_input(bench, dout, part, own, activation, 32)) for part, own in both]
    np.testing.assert_array_equal(bench.values(dx)[:, 1:-1], np.hstack(wanted))
    assert np.isnan(bench.values(dx)[:, [0, -1]]).all()
    rows_of = [
        bench.nans((2, num_inputs * num_outputs), ops.vector_dtype),
        bench.nans((2, num_outputs), ops.vector_dtype),
    ]
    dweight = rows_of[0].reshape(2, num_inputs, num_outputs)
    ops.dense_backward_params(there_x, there_dout, 32, dweight, rows_of[1])
    wanted_params = _backward_params(bench, x, dout, 32)
    np.testing.assert_array_equal(bench.values(dweight), wanted_params[0])
    np.testing.assert_array_equal(bench.values(rows_of[1]), wanted_params[1])


def _loss(
    bench: Bench,
    loss: str,
    logits: Array,
    labels: Array,
    micro_batch: int,
    loss_scale: float = 1.0,
    smoothing: float = 0.0,
) -> tuple[Array, Array]:
    ops = bench.ops
    rows = bench.nans((len(_groups(len(logits), micro_batch)), 32 + TAIL_WORDS), ops.vector_dtype)
    dlogits = bench.nans(logits.shape, ops.activation_dtype)
    op = getattr(ops, loss)
    op(
        bench.vector(logits),
        ops.from_host(labels),
        micro_batch,
        bench.control(LOSS_SCALE=loss_scale),
        dlogits,
        rows[:, 32:],
        *([smoothing] if smoothing else []),
    )
    assert np.isnan(bench.values(rows)[:, :32]).all()
    return dlogits, bench.values(rows)[:, 32:]


def _wanted_loss(loss: str, logits: Array, labels: Array, smoothing: float) -> tuple[Array, Array]:
    """dlogits (R, C) and each sample's loss (R,)."""
    num_classes = logits.shape[1]
    one_hot = np.eye(num_classes)[labels]
    if loss == "mean_squared_error":
        return 2 * (logits - one_hot) / num_classes, ((logits - one_hot) ** 2).mean(axis=1)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    target = (1 - smoothing) * one_hot + smoothing / num_classes
    return softmax - target, -(target * np.log(softmax)).sum(axis=1)


@over_targets
@over_rows
@pytest.mark.parametrize("loss_scale", [1.0, 4096.0])
@pytest.mark.parametrize("num_classes", [10, 3])
def test_losses(
    bench: Bench,
    rng: np.random.Generator,
    micro_batch: int,
    rows: int,
    loss: str,
    smoothing: float,
    loss_scale: float,
    num_classes: int,
) -> None:
    logits = rng.standard_normal((rows, num_classes)).astype(bench.ops.vector_dtype).astype(np.float64)
    labels = rng.integers(0, num_classes, rows)
    dlogits, tails = _loss(bench, loss, logits, labels, micro_batch, loss_scale, smoothing)
    wanted, losses = _wanted_loss(loss, logits, labels, smoothing)
    bench.check(loss, dlogits, wanted * loss_scale, num_classes, bench.activation_eps)
    for tail, part in zip(tails, _groups(rows, micro_batch), strict=True):
        there = bench.ops.from_host(tail[Tail.LOSS_SUM : Tail.LOSS_SUM + 1])
        bench.check(loss, there, losses[part].sum(keepdims=True), rows)
        assert tail[Tail.CORRECT] == np.count_nonzero(logits[part].argmax(axis=1) == labels[part])
        assert tail[Tail.SAMPLES] == part.stop - part.start
        assert (tail[Tail.NON_FINITE :] == 0).all()
        if rows > micro_batch:
            alone, own_tails = _loss(bench, loss, logits[part], labels[part], micro_batch, loss_scale, smoothing)
            np.testing.assert_array_equal(bench.values(dlogits)[part], bench.values(alone))
            np.testing.assert_array_equal(tail, own_tails[0])


@over_losses
def test_of_equal_largest_logits_the_first_counts(bench: Bench, loss: str) -> None:
    _, tails = _loss(bench, loss, np.zeros((3, 4)), np.array([0, 1, 0]), 3)
    assert tails[0, Tail.CORRECT] == 2


@over_losses
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_told(bench: Bench, loss: str, bad: float) -> None:
    logits = np.zeros((4, 3))
    logits[2, 1] = bad
    with np.errstate(invalid="ignore"):
        _, tails = _loss(bench, loss, logits, np.array([0, 1, 2, 0]), 2)
    np.testing.assert_array_equal(tails[:, Tail.NON_FINITE], [0, 1])


@pytest.mark.parametrize("size", [1e4, 1e30, 1e38])
def test_huge_logits_do_not_overflow(bench: Bench, size: float) -> None:
    logits = np.array([[size, -size, 0], [-size, size, 0], [size, size, 0]])
    dlogits, tails = _loss(bench, "cross_entropy", logits, np.array([0, 1, 2]), 3)
    np.testing.assert_array_equal(bench.values(dlogits), [[0, 0, 0], [0, 0, 0], [0.5, 0.5, -1]])
    assert tails[0, Tail.LOSS_SUM] == pytest.approx(size + np.log(2), rel=1e-6)


def test_an_infinite_logit_of_another_class_is_finite_until_labels_are_smoothed(bench: Bench) -> None:
    logits, labels = np.array([[1.0, -np.inf]]), np.array([0])
    finite = [_loss(bench, "cross_entropy", logits, labels, 1, smoothing=value)[1][0] for value in (0.0, 0.1)]
    assert finite[0][[Tail.LOSS_SUM, Tail.NON_FINITE]].tolist() == [0, 0]
    assert finite[1][[Tail.LOSS_SUM, Tail.NON_FINITE]].tolist() == [np.inf, 1]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_saturated_activations_reach_their_limits_and_pass_no_gradient(
    bench: Bench, size: float, activation: str
) -> None:
    x, one = bench.rounded(np.array([[size], [-size]])), np.ones((1, 1))
    out = bench.values(_forward(bench, x, one, np.zeros(1), activation, 2))
    np.testing.assert_array_equal(out[:, 0], [1, -1 if activation == "tanh" else 0])
    dx = _backward_input(bench, np.ones((2, 1)), one, out, activation, 2)
    np.testing.assert_array_equal(bench.values(dx), 0)


@over_lengths
@pytest.mark.parametrize("target", ["left", "right", "other"])
def test_add_into_either_side_or_elsewhere(bench: Bench, length: int, target: str) -> None:
    dtype = bench.ops.vector_dtype
    left, right = (uneven(seed, length).astype(dtype) for seed in (1, 2))
    there = {"left": bench.vector(left), "right": bench.vector(right), "other": bench.nans((length,), dtype)}
    bench.ops.add(there["left"], there["right"], there[target])
    np.testing.assert_array_equal(bench.ops.to_host(there[target]), left + right)


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("length", [33, 1_000_000])
def test_work_aside_follows_what_came_before_and_precedes_what_comes_after_a_join(
    bench: Bench, length: int, captured: bool
) -> None:
    ops, dtype = bench.ops, bench.ops.vector_dtype
    x = bench.vector(np.zeros(length))
    before, beside, aside, after = (bench.nans((length,), dtype) for _ in range(4))

    def work() -> None:
        ops.add(x, x, before)
        with ops.aside():
            ops.add(before, x, aside)
        ops.add(before, before, beside)
        ops.join()
        ops.add(aside, beside, after)

    run = ops.capture(work) if captured else work
    for values in (uneven(1, length).astype(dtype), uneven(2, length).astype(dtype)):
        ops.upload(values, x)
        run()
        wanted = (values + values + values) + (values + values + (values + values))
        np.testing.assert_array_equal(ops.to_host(after), wanted)


def test_a_window_comes_to_the_host_and_ops_go_on(bench: Bench) -> None:
    leaves = uneven(1, 3, 40).astype(bench.ops.vector_dtype)
    rows, out = bench.vector(leaves), bench.nans((40,), bench.ops.vector_dtype)
    np.testing.assert_array_equal(bench.ops.to_host(rows[:, 3:7]), leaves[:, 3:7])
    bench.ops.add(rows[0], rows[1], out)
    np.testing.assert_array_equal(bench.ops.to_host(out), leaves[0] + leaves[1])


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 7, 8, 13, 16, 33])
@pytest.mark.parametrize("length", [1, 33, 1032])
@pytest.mark.parametrize("in_place", [True, False])
def test_tree_sum_is_the_canonical_tree(bench: Bench, groups: int, length: int, in_place: bool) -> None:
    dtype = bench.ops.vector_dtype
    leaves = uneven(3, groups, length).astype(dtype)
    wanted = tree_fold(list(leaves))
    rows = bench.vector(np.concatenate([leaves, np.full((groups, 8), np.nan, dtype)], axis=1))
    out = rows[0, :length] if in_place else bench.nans((length,), dtype)
    bench.ops.tree_sum(rows[:, :length], out)
    np.testing.assert_array_equal(bits(bench.ops.to_host(out)), bits(wanted))


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4, 5, 7, 8, 13, 196, 300])
def test_squared_norms_are_the_canonical_tree_over_blocks(
    bench: Bench, rng: np.random.Generator, num_blocks: int
) -> None:
    # Small whole numbers times a power of two: each block's sum is exact in any order, that of the blocks is not.
    dtype = bench.ops.vector_dtype
    whole = rng.integers(-40, 40, (2, num_blocks, BLOCK)).astype(dtype)
    blocks = whole * 2.0 ** rng.integers(-9, 9, (2, num_blocks, 1)).astype(dtype)
    sums = (blocks.astype(np.float64) ** 2).sum(axis=2).astype(dtype)
    rows = bench.nans((2, num_blocks * BLOCK + 8), dtype)
    bench.ops.upload(np.hstack([blocks.reshape(2, -1), np.full((2, 8), np.nan, dtype)]).astype(dtype), rows)
    tails = rows[:, num_blocks * BLOCK :]
    bench.ops.squared_norms(rows[:, : num_blocks * BLOCK], tails[:, Tail.SQUARED_NORM_SUM])
    wanted = [tree_fold(list(row)) for row in sums]
    np.testing.assert_array_equal(bench.values(tails)[:, Tail.SQUARED_NORM_SUM], wanted)
    assert np.isnan(np.delete(bench.values(tails), Tail.SQUARED_NORM_SUM, axis=1)).all()


def test_squared_norms_would_notice_another_order(rng: np.random.Generator) -> None:
    sums = (rng.integers(1, 2**20, 196) * 2.0 ** rng.integers(-9, 9, 196)).astype(np.float32)
    in_line = np.float32(0)
    for value in sums:
        in_line += value
    assert tree_fold(list(sums)) != in_line


POLICY = Policy(global_batch=50, clip_norm=0.0, growth_interval=0, largest_loss_scale=2.0**15)


class Decision:
    """`decide` on a gradient whose squared norm is 4 * BLOCK (2 everywhere), of 8 samples, and what it left behind."""

    def __init__(self, bench: Bench, policy: Policy = POLICY, fill: float = 2.0, tail: Any = None, **control: float):
        ops = bench.ops
        words_of_tail = np.zeros(TAIL_WORDS)
        words_of_tail[Tail.LOSS_SUM], words_of_tail[Tail.SAMPLES] = 12, 8
        for word, value in (tail or {}).items():
            words_of_tail[word] = value
        cursor = np.array([150, 3, 6, 0])[:CURSOR_WORDS]
        there = bench.control(**control)
        history = bench.nans((4, HISTORY_WORDS), np.float64)
        places = ops.from_host(cursor)
        rates = ops.from_host(np.array([[9, 0], [8, 0], [7, 0], [0.3, 0.6]]))
        grads = bench.vector(np.full(BLOCK, fill))
        copies = [ops.from_host(np.array(ops.to_host(array))) for array in (places, there, history)]
        ops.decide(grads, bench.vector(words_of_tail), rates, places, there, history, policy)
        self.control = np.array(ops.to_host(there))
        self.cursor = np.array(ops.to_host(places))
        rows = np.array(ops.to_host(history))
        norms = bench.vector(np.zeros(1))
        ops.squared_norms(grads.reshape(1, BLOCK), norms)
        ops.decide_by_norms(norms, bench.vector(words_of_tail), rates, *copies, policy)
        for array, found in zip(copies, (self.cursor, self.control, rows), strict=True):
            np.testing.assert_array_equal(np.array(ops.to_host(array)), found)
        assert np.isnan(np.delete(rows, 2, axis=0)).all()
        self.row = rows[2]


def test_decide_on_a_good_step(bench: Bench) -> None:
    done = Decision(bench, UPDATE=4)
    norm = 2 * BLOCK**0.5 / 8
    assert done.control[[Control.LR, Control.SCALE, Control.APPLY, Control.UPDATE, Control.HALTED]].tolist() == [
        0.3,
        1 / 8,
        1,
        5,
        0,
    ]
    assert done.control[[Control.MOMENTUM, Control.CLIP_VALUE]].tolist() == [0.6, 0]
    assert done.cursor[:3].tolist() == [200, 4, 7]
    assert done.row[: Tail.CORRECT].tolist() == [12, 8]
    wanted = {History.LR: 0.3, History.GRAD_NORM: norm, History.APPLIED: 1, History.OVERFLOWED: 0}
    assert {word: done.row[word] for word in wanted} == pytest.approx(wanted)
    assert done.row[History.LOSS_SCALE] == 1


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 31, 32, 33, 100, 257, 1025])
def test_the_norms_of_blocks_make_the_norm_of_the_vector(bench: Bench, num_blocks: int) -> None:
    ops = bench.ops
    grads = bench.vector(np.random.default_rng(num_blocks).standard_normal(num_blocks * BLOCK))
    words_of_tail = np.zeros(TAIL_WORDS)
    words_of_tail[Tail.SAMPLES] = 8
    found = []
    for by_norms in (False, True):
        cursor, control = ops.zeros((CURSOR_WORDS,), np.int64), bench.control()
        history = ops.zeros((4, HISTORY_WORDS), np.float64)
        words = bench.vector(words_of_tail), ops.zeros((4, RATE_WORDS), np.float64), cursor, control, history, POLICY
        if by_norms:
            norms = bench.vector(np.zeros(num_blocks))
            ops.squared_norms(grads.reshape(num_blocks, BLOCK), norms)
            ops.decide_by_norms(norms, *words)
        else:
            ops.decide(grads, *words)
        found.append(float(np.array(ops.to_host(history))[0, History.GRAD_NORM]))
    assert found[0] == found[1] > 0


def test_decide_lowers_the_learning_rate(bench: Bench) -> None:
    done = Decision(bench, LR_FACTOR=0.1)
    assert done.control[[Control.LR, Control.LR_FACTOR]].tolist() == [0.3 * 0.1, 0.1]
    assert done.row[History.LR] == 0.3 * 0.1


def test_decide_hands_on_the_bound_of_elements(bench: Bench) -> None:
    done = Decision(bench, POLICY._replace(clip_value=0.25))
    assert done.control[[Control.SCALE, Control.CLIP_VALUE]].tolist() == [1 / 8, 0.25]


def test_decide_clips(bench: Bench) -> None:
    done = Decision(bench, POLICY._replace(clip_norm=2.0))
    assert done.control[Control.SCALE] == pytest.approx(1 / 8 * 2 / (2 * BLOCK**0.5 / 8))
    unclipped = Decision(bench, POLICY._replace(clip_norm=100.0))
    assert unclipped.control[Control.SCALE] == 1 / 8


@pytest.mark.parametrize("why", [{"fill": np.nan}, {"fill": np.inf}, {"fill": 1e30}, {"tail": {Tail.NON_FINITE: 1}}])
def test_decide_halts_where_something_is_not_finite(bench: Bench, why: dict[str, Any]) -> None:
    if why.get("fill") == 1e30 and bench.ops.vector_dtype == np.float64:
        why = {"fill": 1e160}
    with np.errstate(over="ignore", invalid="ignore"):
        done = Decision(bench, UPDATE=4, **why)
    assert done.control[[Control.APPLY, Control.UPDATE, Control.HALTED]].tolist() == [0, 4, 1]
    assert done.row[[History.APPLIED, History.OVERFLOWED]].tolist() == [0, 0]
    assert done.cursor[:3].tolist() == [200, 4, 7]


def test_decide_applies_nothing_once_halted(bench: Bench) -> None:
    done = Decision(bench, HALTED=1, UPDATE=4)
    assert done.control[[Control.APPLY, Control.UPDATE, Control.HALTED]].tolist() == [0, 4, 1]


SCALING = POLICY._replace(growth_interval=3)


@pytest.mark.parametrize("halted", [0, 1])
@pytest.mark.parametrize("why", [{"fill": 0.0}, {}, {"fill": np.inf}, {"tail": {Tail.NON_FINITE: 1}}])
def test_decide_without_samples_applies_nothing_and_halts_nothing(
    bench: Bench, halted: int, why: dict[str, Any]
) -> None:
    tail = {Tail.LOSS_SUM: 0, Tail.SAMPLES: 0} | why.get("tail", {})
    with np.errstate(over="ignore", invalid="ignore"):
        state = {"HALTED": halted, "UPDATE": 4, "LOSS_SCALE": 64, "GOOD_STEPS": 2, "SCALE": 9}
        done = Decision(bench, SCALING, **why | {"tail": tail}, **state)
    words_left = [Control.SCALE, Control.APPLY, Control.UPDATE, Control.HALTED, Control.LOSS_SCALE, Control.GOOD_STEPS]
    assert done.control[words_left].tolist() == [0, 0, 4, halted, 64, 2]
    assert done.row[[Tail.SAMPLES, History.APPLIED, History.OVERFLOWED, History.LOSS_SCALE]].tolist() == [0, 0, 0, 64]
    assert why.get("fill") == np.inf or done.row[History.GRAD_NORM] == 0
    assert done.cursor[:3].tolist() == [200, 4, 7]


def test_decide_halves_a_loss_scale_that_overflows(bench: Bench) -> None:
    done = Decision(bench, SCALING, fill=np.inf, LOSS_SCALE=1024, GOOD_STEPS=2, UPDATE=4)
    words_left = [Control.APPLY, Control.UPDATE, Control.HALTED, Control.LOSS_SCALE, Control.GOOD_STEPS]
    assert done.control[words_left].tolist() == [0, 4, 0, 512, 0]
    assert done.row[[History.APPLIED, History.OVERFLOWED, History.LOSS_SCALE]].tolist() == [0, 1, 1024]


@pytest.mark.parametrize(
    "state", [{"LOSS_SCALE": 1}, {"LOSS_SCALE": 64, "HALTED": 1}, {"LOSS_SCALE": 64, "tail": {Tail.NON_FINITE: 1}}]
)
def test_decide_halts_where_a_smaller_loss_scale_would_not_help(bench: Bench, state: dict[str, Any]) -> None:
    done = Decision(bench, SCALING, fill=np.inf, **state)
    assert done.control[[Control.HALTED, Control.LOSS_SCALE]].tolist() == [1, state["LOSS_SCALE"]]
    assert done.row[History.OVERFLOWED] == 0


@pytest.mark.parametrize(("good_steps", "scale", "wanted"), [(0, 64, 64), (2, 64, 128), (2, 2.0**15, 2.0**15)])
def test_decide_doubles_a_loss_scale_that_held(bench: Bench, good_steps: int, scale: float, wanted: float) -> None:
    done = Decision(bench, SCALING, LOSS_SCALE=scale, GOOD_STEPS=good_steps)
    assert done.control[Control.LOSS_SCALE] == wanted
    assert done.control[Control.GOOD_STEPS] == (1 if good_steps == 0 else 0)
    assert done.control[Control.SCALE] == 1 / 8 / scale
    assert done.row[History.GRAD_NORM] == pytest.approx(2 * BLOCK**0.5 / 8 / scale)


def hyper_of(rule: Rule) -> dict[str, float]:
    """Its hyper-parameters; 0.9 stands for those that are options."""
    return {name: 0.9 if value is None else value for name, value in rule.hyper.items()}


def wanted_update(
    rule: Rule,
    vectors: Sequence[Array],
    weight_decay: float,
    lr: float,
    scale: float,
    t: int,
    clip_value: float = np.inf,
    **hyper: float,
) -> list[Array]:
    """Returns params, grads and state after an update, by the formula in the rule's row, in float64."""
    params, grads, *state = (vector.astype(np.float64) for vector in vectors)
    joined = 0.0 if rule.decoupled else weight_decay
    mean = np.clip(scale * grads, -clip_value, clip_value)
    names = {"g": mean + joined * params, "lr": lr, "t": t, "sqrt": np.sqrt, "sign": np.sign}
    names |= {"weight_decay": weight_decay, "params": params}
    names |= dict(zip(rule.state, state, strict=True)) | hyper_of(rule) | hyper
    exec(rule.formula, {}, names)
    return [params - names["change"], grads, *(names[vector] for vector in rule.state)]


def vectors_of(rule: Rule, rng: np.random.Generator, length: int) -> list[Array]:
    """Returns params, grads and state, float64 (length,), as they are before the third update."""
    params, state = rng.standard_normal(length), [np.zeros(length) for _ in rule.state]
    for t in (1, 2):
        params, _, *state = wanted_update(rule, [params, rng.standard_normal(length), *state], 0.0, 0.1, 0.5, t)
    return [params, rng.standard_normal(length), *state]


def _update(
    bench: Bench, rule: Rule, vectors: list[Array], weight_decay: float, **control: float
) -> tuple[list[Array], Array]:
    ops = bench.ops
    there = [bench.vector(vector.copy()) for vector in vectors]
    weights = ops.round_weights(there[0])
    hyper = list(hyper_of(rule).values())
    ops.update(rule.name, there[0], there[1], there[2:], bench.control(**control), weight_decay, hyper, weights)
    return [bench.values(vector) for vector in there], bench.values(weights)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 40), (32, 32), (33, 7), (200, 65)])
def test_norms_of_columns_are_limited(bench: Bench, rng: np.random.Generator, rows: int, width: int) -> None:
    """Sums have one order, so the bits are those of the partial sums; half of the columns are too long."""
    ops, dtype = bench.ops, bench.ops.vector_dtype
    weight = rng.standard_normal((rows, width)).astype(dtype)
    partial = np.zeros((32, width), dtype)
    for row in range(rows):
        partial[row % 32] += weight[row] * weight[row]
    norms = np.sqrt(tree_fold(list(partial)))
    limit = float(np.median(norms)) if width > 1 else float(norms[0]) / 2
    factors = np.where(norms > dtype.type(limit), dtype.type(limit) / norms, dtype.type(1))
    for apply, wanted in ((1, weight * factors), (0, weight)):
        there = bench.vector(weight.copy())
        rounded = ops.round_weights(there.reshape(-1)).reshape(rows, width)
        copy = there if ops.activation_dtype == dtype else rounded
        ops.limit_norms(there, copy, bench.control(APPLY=apply), limit)
        np.testing.assert_array_equal(bits(np.array(ops.to_host(there))), bits(wanted))
        np.testing.assert_array_equal(bench.values(copy), _stored(bench, wanted))
    assert (np.linalg.norm(weight * factors, axis=0) <= limit * (1 + 1e-5)).all()


@over_rules
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@over_lengths
def test_updates(bench: Bench, rng: np.random.Generator, rule: Rule, weight_decay: float, length: int) -> None:
    vectors = [vector.astype(bench.ops.vector_dtype) for vector in vectors_of(rule, rng, length)]
    got, weights = _update(bench, rule, vectors, weight_decay, LR=0.1, SCALE=0.5, APPLY=1, UPDATE=3)
    for held, wanted in zip(got, wanted_update(rule, vectors, weight_decay, 0.1, 0.5, 3), strict=True):
        bench.check(rule.name, bench.vector(held), wanted)
    np.testing.assert_array_equal(weights, _stored(bench, got[0]))
    kept, weights = _update(bench, rule, vectors, weight_decay, LR=0.1, SCALE=0.5, APPLY=0, UPDATE=3)
    np.testing.assert_array_equal(kept, vectors)
    np.testing.assert_array_equal(weights, _stored(bench, vectors[0]))


@over_rules
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_updates_clip_elements(bench: Bench, rng: np.random.Generator, rule: Rule, weight_decay: float) -> None:
    vectors = [vector.astype(bench.ops.vector_dtype) for vector in vectors_of(rule, rng, 1021)]
    vectors[1][0] = 1000
    got, _ = _update(bench, rule, vectors, weight_decay, LR=0.1, SCALE=0.5, APPLY=1, UPDATE=3, CLIP_VALUE=0.25)
    for held, wanted in zip(got, wanted_update(rule, vectors, weight_decay, 0.1, 0.5, 3, 0.25), strict=True):
        bench.check(rule.name, bench.vector(held), wanted)
    loose, _ = _update(bench, rule, vectors, weight_decay, LR=0.1, SCALE=0.5, APPLY=1, UPDATE=3, CLIP_VALUE=501)
    unbounded, _ = _update(bench, rule, vectors, weight_decay, LR=0.1, SCALE=0.5, APPLY=1, UPDATE=3)
    np.testing.assert_array_equal(loose, unbounded)


@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in ELEMENTWISE.items() if rule.momentum])
def test_updates_take_the_momentum_of_the_step(bench: Bench, rng: np.random.Generator, rule: Rule) -> None:
    vectors = [vector.astype(bench.ops.vector_dtype) for vector in vectors_of(rule, rng, 1021)]
    got, _ = _update(bench, rule, vectors, 0.01, LR=0.1, SCALE=0.5, APPLY=1, UPDATE=3, MOMENTUM=0.7)
    wanted_vectors = wanted_update(rule, vectors, 0.01, 0.1, 0.5, 3, **{rule.momentum: 0.7})
    for held, wanted in zip(got, wanted_vectors, strict=True):
        bench.check(rule.name, bench.vector(held), wanted)


def _stored(bench: Bench, params: Array) -> Array:
    """As weights are stored: tf32 is rounded by products alone."""
    return params.astype(np.float64) if bench.precision == "tf32" else bench.rounded(params)


@pytest.mark.parametrize(
    ("first", "second"), [((64, 128), (300, 300)), ((300, 300), (64, 128)), ((31, 100), (128, 384))]
)
def test_losses_of_another_shape_do_not_disturb_each_other(
    bench: Bench, first: tuple[int, int], second: tuple[int, int]
) -> None:
    results = []
    for micro_batch, rows in (first, second, first):
        logits = np.random.default_rng(rows).standard_normal((rows, 10))
        results.append(_loss(bench, "cross_entropy", logits, np.arange(rows) % 10, micro_batch)[1])
    np.testing.assert_array_equal(results[0], results[2])
