"""The reference obeys the laws of ops, in float32 and float64; its gradients equal finite differences; nothing allocates."""

import tracemalloc
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from augment_laws import *  # noqa: F403
from ddpgd.config.schema import Config
from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import (
    BLOCK,
    CONTROL_WORDS,
    CURSOR_WORDS,
    HISTORY_WORDS,
    RATE_WORDS,
    TAIL_WORDS,
    Control,
    Policy,
    Tail,
)
from ddpgd.model.layers import Mode, dense_layers
from ddpgd.model.network import Network
from ddpgd.optim.rules import ELEMENTWISE, RULES, Rule
from ddpgd.params import initialise
from ddpgd.run import build_parts
from matrix_laws import *  # noqa: F403
from op_laws import *  # noqa: F403
from op_laws import LOSSES, Bench, hyper_of, vectors_of

Array = NDArray[Any]

ELASTIC = Augmentation(0, (2, 2), shift=1.0, elastic_alpha=1.0)
NETWORK_LOSSES = tuple({"cross_entropy": "cross-entropy", "mean_squared_error": "mse"}[name] for name in LOSSES)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(Reference(request.param), request.param.__name__)


def steady_control(apply: bool = True) -> Array:
    """Control words of a step that is applied, with a learning rate of 0.1."""
    control = np.zeros(CONTROL_WORDS)
    control[[Control.LR, Control.SCALE, Control.APPLY, Control.UPDATE, Control.LOSS_SCALE]] = 0.1, 0.5, apply, 3, 1
    control[Control.LR_FACTOR] = 1
    return control


def _calls(ops: Reference, rng: np.random.Generator) -> dict[str, tuple[Callable[..., Any], list[Any], set[int]]]:
    """Each op with arguments, and the positions of those that it may change."""

    def real(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    def tail(*shape: int) -> Array:
        return np.full((*shape, TAIL_WORDS), 5, np.float32)

    images, labels = rng.integers(0, 256, (9, 4), dtype=np.uint8), rng.integers(0, 3, 9, dtype=np.uint8)
    classes = labels[:5].astype(np.int64)
    cursor, control, policy = np.array([1, 2, 3, 0]), steady_control(), Policy(5, 0.0, 0, 1.0)
    return {
        "gather_normalise": (
            ops.gather_normalise,
            [images, labels, np.arange(7), cursor, 1, 0.1, 0.3, real(5, 4), np.full(5, 9)],
            {7, 8},
        ),
        "gather_augment": (
            lambda *given: ops.gather_augment(*given[:7], ELASTIC, *given[7:]),
            [images, labels, np.arange(7), cursor, 1, 0.1, 0.3, real(5, 4), np.full(5, 9)],
            {7, 8},
        ),
        "dense_forward": (ops.dense_forward, [real(5, 4), [real(4, 3)], [real(3)], "tanh", 5, real(5, 3)], {5}),
        "dense_backward_params": (
            ops.dense_backward_params,
            [real(5, 4), real(5, 3), 3, real(2, 4, 3), real(2, 3)],
            {3, 4},
        ),
        "dense_backward_input": (
            ops.dense_backward_input,
            [real(5, 3), [real(4, 3)], real(5, 4), "sigmoid", 5, real(5, 4)],
            {5},
        ),
        "cross_entropy": (ops.cross_entropy, [real(5, 3), classes, 3, control, real(5, 3), tail(2)], {4, 5}),
        "mean_squared_error": (ops.mean_squared_error, [real(5, 3), classes, 5, control, real(5, 3), tail(1)], {4, 5}),
        "add": (ops.add, [real(9), real(9), real(9)], {2}),
        "tree_sum": (ops.tree_sum, [real(1, 9), real(9)], {1}),
        "squared_norms": (ops.squared_norms, [real(2, 3 * BLOCK), real(2)], {1}),
        "decide": (
            ops.decide,
            [real(BLOCK), tail(), np.ones((9, RATE_WORDS)), cursor, control, np.zeros((2, HISTORY_WORDS)), policy],
            {3, 4, 5},
        ),
        "update_matrix": (
            ops.update_matrix,
            [real(5, 4), real(5, 4), real(5, 4), control, 0.01, 0.95, real(5, 4)],
            {0, 2},
        ),
    } | {
        rule.name: (
            partial(_update_flat, ops, rule),
            [*vectors_of(rule, rng, 9), control, real(9)],
            {0, *range(2, 2 + len(rule.state))},
        )
        for rule in ELEMENTWISE.values()
    }


def _update_flat(ops: Reference, rule: Rule, params: Array, grads: Array, *others: Array) -> None:
    """`Ops.update` with its vectors one by one."""
    *state, control, weights = others
    ops.update(rule.name, params, grads, state, control, 0.01, list(hyper_of(rule).values()), weights)


@pytest.mark.parametrize("name", list(_calls(Reference(), np.random.default_rng())))
def test_an_op_changes_what_its_contract_names_and_nothing_else(rng: np.random.Generator, name: str) -> None:
    op, arguments, outputs = _calls(Reference(), rng)[name]
    before = deepcopy(arguments)
    op(*arguments)
    changed = {position for position, was in enumerate(before) if not np.array_equal(arguments[position], was)}
    assert changed == outputs


def _network(
    activation: str,
    loss: str,
    hidden: tuple[int, ...],
    max_rows: int,
    dtype: type,
    loss_options: Sequence[float] = (),
) -> tuple[Network, Array]:
    layers = dense_layers((6, *hidden, 4), activation)
    model = Network(Reference(dtype), layers, loss, max_rows, loss_options=loss_options)
    params = np.zeros(model.layout.size, dtype)
    rng = np.random.default_rng(11)
    for view in model.layout.views(params):
        view[...] = rng.standard_normal(view.shape) * 0.7
    return model, params


@pytest.mark.parametrize("hidden", [(), (5,), (5, 3)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize(
    ("loss", "loss_options"), [*((loss, ()) for loss in NETWORK_LOSSES), ("cross-entropy", (0.2,))]
)
def test_the_gradient_of_a_network_equals_finite_differences(
    rng: np.random.Generator, activation: str, loss: str, loss_options: tuple[float, ...], hidden: tuple[int, ...]
) -> None:
    model, params = _network(activation, loss, hidden, 9, np.float64, loss_options)
    num_rows = model.set_inputs(rng.standard_normal((7, 6)), rng.integers(0, 4, 7))
    grads, tails, control = np.zeros((1, model.layout.size)), np.zeros((1, TAIL_WORDS)), steady_control()
    model.gradient(params, params, num_rows, 9, control, grads, tails)

    def loss_sum() -> float:
        model.forward(params, params, num_rows, 9)
        model.loss(num_rows, 9, control, tails, Mode.TRAINING)
        return float(tails[0, Tail.LOSS_SUM])

    step, numeric = 1e-5, np.zeros_like(params)
    for tensor in model.layout.tensors:
        for position in range(tensor.start, tensor.start + tensor.size):
            params[position] += step
            above = loss_sum()
            params[position] -= 2 * step
            below = loss_sum()
            params[position] += step
            numeric[position] = (above - below) / (2 * step)
    assert np.abs(grads).max() > 0.1
    np.testing.assert_allclose(grads[0], numeric, rtol=1e-7, atol=1e-8)


def test_rows_beyond_the_batch_play_no_part(rng: np.random.Generator) -> None:
    model, params = _network("relu", "cross-entropy", (5,), 9, np.float32)
    x, labels = rng.standard_normal((4, 6)), rng.integers(0, 4, 4)
    results = []
    for rubbish in (0.0, np.nan):
        model.set_inputs(np.full((9, 6), rubbish), np.zeros(9, np.int64))
        grads, tails = np.zeros((2, model.layout.size), np.float32), np.zeros((2, TAIL_WORDS), np.float32)
        model.gradient(params, params, model.set_inputs(x, labels), 3, steady_control(), grads, tails)
        results.append((grads, tails))
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


@pytest.mark.parametrize("optimizer", list(RULES))
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("loss", NETWORK_LOSSES)
def test_a_second_step_allocates_nothing(rng: np.random.Generator, activation: str, loss: str, optimizer: str) -> None:
    ops, rows = Reference(), 1024
    model = Network(ops, dense_layers((300, 40, 30, 10), activation), loss, rows)
    params = initialise(model.layout, "he", seed=1)
    rule = build_parts.optimizer(ops, Config(optimizer=optimizer), model.layout, slice(0, model.layout.size))
    images, labels = rng.integers(0, 256, (2000, 300), dtype=np.uint8), rng.integers(0, 10, 2000, dtype=np.uint8)
    order, cursor = rng.permutation(2000), np.zeros(CURSOR_WORDS, np.int64)
    grads, tails = np.zeros((1, model.layout.size), np.float32), np.zeros((1, TAIL_WORDS), np.float32)
    control, history, rates = steady_control(), np.zeros((4, HISTORY_WORDS)), np.tile([0.01, 0.0], (9, 1))
    policy, total = Policy(rows, 1.0, 0, 1.0), grads[0]

    def step() -> None:
        cursor[0] = 0
        model.load(images, labels, order, cursor, 0, rows)
        model.gradient(params, params, rows, rows, control, grads, tails)
        ops.decide(total, tails[0], rates, cursor, control, history, policy)
        rule.update(params, total, control, params)

    step()
    tracemalloc.start()
    try:
        step()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # NumPy buffers what it casts or broadcasts, np.getbufsize() elements at most; every array of the step is larger.
    smallest = min(rows * 10 * 4, model.layout.size * 4)
    assert np.getbufsize() * 4 < smallest
    assert peak < smallest
    assert kept < 2048
