"""Muon: steps by hand, a run beside one in plain NumPy, which params it updates, and how ranks divide the work."""

import threading
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config
from ddpgd.errors import InputError
from ddpgd.kernels.newton_schulz import multiplications
from ddpgd.kernels.reference import backend
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, TAIL_WORDS, Control
from ddpgd.lab import command
from ddpgd.model.layers import dense_layers, network_layout
from ddpgd.model.network import Network
from ddpgd.params import Layout
from ddpgd.run import build_network, build_parts
from matrix_laws import orthogonalised
from runs import records, train

Array = NDArray[Any]
Tensors = dict[str, Array]

MUON: dict[str, Any] = {"optimizer": "muon", "lr": 0.01}
SIZES, ROWS = (6, 9, 7, 4), 12


def control(lr: float, scale: float, number: int) -> Array:
    """The words that `decide` would leave to update `number`."""
    words = np.zeros(CONTROL_WORDS)
    words[[Control.LR, Control.SCALE, Control.APPLY, Control.UPDATE, Control.LOSS_SCALE]] = lr, scale, 1, number, 1
    return words


# 3.4445 s - 4.7750 s^3 + 2.0315 s^5, five times: from 1, 0.7010, 1.1136, 0.7207, 1.0900, 0.6964; from 1 / sqrt(2), 1.1065,
# 0.7121, 1.1006, 0.7058, 1.1081.
OF_ONE, OF_TWO = 0.6964364, 1.1081111
# weight_decay, params, then for each update the gradient and the params by hand; lr 0.1, scale 0.5, beta 0.95.
# A row has the singular value 1: steps of 0.1 0.2 sqrt(2) OF_ONE along [0.6, 0.8]. exp_avg 0.05 g, then 0.0475 g.
ROW = 0.02 * 2**0.5 * OF_ONE * np.array([[0.6, 0.8]])
# The identity has two of 1 / sqrt(2). exp_avg 0.05, then 0.0475 - 0.15 = -0.1025, then -0.097375.
UNIT = 0.02 * 2**0.5 * OF_TWO * np.eye(2)
STEPS = [
    (0.0, [[1, 2]], [([[6, 8]], [[1, 2]] - ROW), ([[0, 0]], [[1, 2]] - 2 * ROW), ([[-60, -80]], [[1, 2]] - ROW)]),
    (0.0, [[1], [2]], [([[6], [8]], [[1], [2]] - ROW.T), ([[0], [0]], [[1], [2]] - 2 * ROW.T)]),
    (0.0, np.zeros((2, 2)), [(2 * np.eye(2), -UNIT), (-6 * np.eye(2), 0 * UNIT), (np.zeros((2, 2)), UNIT)]),
    # 0.1 0.5 params beside it
    (
        0.5,
        np.eye(2),
        [
            (2 * np.eye(2), 0.95 * np.eye(2) - UNIT),
            (-6 * np.eye(2), 0.9025 * np.eye(2) + 0.05 * UNIT),
            (np.zeros((2, 2)), 0.857375 * np.eye(2) + 1.0475 * UNIT),
        ],
    ),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("weight_decay", "first", "updates"), STEPS)
def test_steps_worked_out_by_hand(dtype: type, weight_decay: float, first: Any, updates: list[tuple[Any, Any]]) -> None:
    ops, params = Reference(dtype), np.array(first, dtype)
    exp_avg = np.zeros_like(params)
    for number, (gradient_sum, wanted) in enumerate(updates, start=1):
        words = control(0.1, 0.5, number)
        ops.update_matrix(params, np.array(gradient_sum, dtype), exp_avg, words, weight_decay, 0.95, params)
        np.testing.assert_allclose(params, wanted, atol=1e-6)


def plain_gradients(tensors: Tensors, x: Array, labels: Array) -> Tensors:
    """The mean gradient of the cross-entropy of a network with tanh, written once more."""
    outputs = [x]
    for number in (1, 2, 3):
        z = outputs[-1] @ tensors[f"dense{number}.weight"] + tensors[f"dense{number}.bias"]
        outputs.append(np.tanh(z) if number < 3 else z)
    exponentials = np.exp(outputs.pop())
    dz = exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(SIZES[-1])[labels]
    grads = {}
    for number in (3, 2, 1):
        before = outputs[number - 1]
        grads[f"dense{number}.weight"] = before.T @ dz / len(x)
        grads[f"dense{number}.bias"] = dz.sum(axis=0) / len(x)
        dz = dz @ tensors[f"dense{number}.weight"].T * (1 - before**2)
    return grads


def plain_update(tensors: Tensors, grads: Tensors, state: dict[str, Tensors], lr: float, decay: float, t: int) -> None:
    """Hidden weights by the published Muon with Nesterov momentum, all else by AdamW."""
    for name, g in grads.items():
        first, second = state["exp_avg"], state["exp_avg_sq"]
        if name in ("dense1.weight", "dense2.weight"):
            first[name] = 0.95 * first[name] + 0.05 * g
            direction = orthogonalised(0.95 * first[name] + 0.05 * g)
            change = 0.2 * max(g.shape) ** 0.5 * direction
        else:
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            change = first[name] / (1 - 0.9**t) / (np.sqrt(second[name] / (1 - 0.999**t)) + 1e-8)
        tensors[name] = tensors[name] - lr * change - lr * decay * tensors[name]


def test_a_run_equals_one_in_plain_numpy() -> None:
    """200 steps in float64 on four batches in turn."""
    ops, rng = Reference(np.float64), np.random.default_rng(3)
    model = Network(ops, dense_layers(SIZES, "tanh"), "cross-entropy", ROWS)
    layout, params = model.layout, np.zeros(model.layout.size)
    for view in layout.views(params):
        view[...] = 0.5 * rng.standard_normal(view.shape)
    whole = slice(0, layout.size)
    rule = build_parts.optimizer(ops, Config(**MUON, weight_decay=0.01), layout, whole)
    tensors = {name: array.copy() for name, array in layout.whole_tensors(params).items()}
    state = {vector: {name: np.zeros_like(array) for name, array in tensors.items()} for vector in rule.state}
    batches = [(rng.standard_normal((ROWS, SIZES[0])), rng.integers(0, SIZES[-1], ROWS)) for _ in range(4)]
    grads, tails = np.zeros((1, layout.size)), np.zeros((1, TAIL_WORDS))
    for number in range(1, 201):
        x, labels = batches[number % 4]
        words = control(0.02, 1 / ROWS, number)
        model.gradient(params, params, model.set_inputs(x, labels), ROWS, words, grads, tails)
        rule.update(params, grads[0], words, params)
        plain_update(tensors, plain_gradients(tensors, x, labels), state, 0.02, 0.01, number)
    for vector, wanted in ((params, tensors), *((rule.state[name], state[name]) for name in rule.state)):
        for name, array in layout.whole_tensors(vector).items():
            np.testing.assert_allclose(array, wanted[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 3), (5, 4, 3)])
@pytest.mark.parametrize("shards", [1, 3])
def test_matrices_are_the_weights_before_the_last_layer_shard_by_shard(
    hidden: tuple[int, ...], shards: int, activation: str
) -> None:
    config = Config(hidden=hidden, activation=activation, shards=shards)
    layout = build_network.layout(config, (2, 3))
    matrices, rest = build_parts.parts(layout, slice(0, layout.size))
    wanted = [
        tensor for tensor in layout.tensors if "weight" in tensor.name and f"{len(hidden) + 1}" not in tensor.name
    ]
    assert matrices == [(tensor.start, tensor.shape) for tensor in wanted]
    assert len(matrices) == shards * len(hidden)
    held = np.zeros(layout.size, int)
    for start, shape in matrices:
        held[start : start + np.prod(shape, dtype=int)] += 1
    for span in rest:
        held[span] += 1
    for tensor in layout.tensors:
        assert (held[tensor.start : tensor.start + tensor.size] == 1).all()


def cost(layout: Layout, span: slice) -> int:
    """Returns the cost of the tensors in a span."""
    held = [tensor for tensor in layout.tensors if span.start <= tensor.start < span.stop]
    return sum(multiplications(tensor.shape) if tensor.is_hidden else tensor.size for tensor in held)


@pytest.mark.parametrize(
    "sizes", [(9, 4), (30, 20, 4), (30, 20, 20, 4), (30, 10, 20, 30, 40, 4), (1000, 4, 60, 60, 60, 4)]
)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_ranks_own_whole_layers_so_that_the_dearest_part_is_cheapest(sizes: tuple[int, ...], world_size: int) -> None:
    layout = network_layout(dense_layers(sizes, "relu"))
    spans = build_network.owned(Config(optimizer="muon"), layout, world_size)
    assert len(spans) == world_size
    assert spans[0].start == 0
    assert all(before.stop == after.start for before, after in pairwise(spans))
    assert spans[-1].stop == layout.size
    starts = [unit.start for unit in layout.units[1:]]
    assert {span.start for span in spans} <= {0, *starts, layout.size}
    count = min(world_size, len(layout.units)) - 1
    cuts = ([0, *chosen, layout.size] for chosen in combinations(starts, count))
    cheapest = min(max(cost(layout, slice(*pair)) for pair in pairwise(cut)) for cut in cuts)
    assert max(cost(layout, span) for span in spans) == cheapest


@pytest.mark.parametrize(("shard_optimizer", "times"), [("on", 1), ("auto", 1), ("off", 3)])
@pytest.mark.usefixtures("few_digits")
def test_a_sharded_optimizer_orthogonalises_each_matrix_once(
    shard_optimizer: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, calls = backend.update_matrix, Counter[tuple[int, ...]]()
    lock = threading.Lock()

    def counted(scratch: Any, params: Array, *others: Any) -> None:
        with lock:
            calls[params.shape] += 1
        update(scratch, params, *others)

    monkeypatch.setattr(backend, "update_matrix", counted)
    train(tmp_path / "run", 3, **MUON, hidden=(12, 9), shard_optimizer=shard_optimizer, steps=4)
    assert calls == {(784, 12): 4 * times, (12, 9): 4 * times}


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize(
    "given",
    [
        {"clip_norm": 0.1},
        {"weight_decay": 0.3, "scale_lr": "sqrt:25", "warmup": 3},
        {"wire": "bfloat16", "error_feedback": True},
        {"sync": "local", "local_steps": 2, "outer_momentum": 0.9},
    ],
)
@pytest.mark.usefixtures("few_digits")
def test_it_learns_beside_other_options(given: dict[str, Any], world_size: int, tmp_path: Path) -> None:
    train(tmp_path / "run", world_size, **MUON | {"hidden": (40, 30)} | given, steps=24)
    losses = [record["train_loss_mean"] for record in records(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"wire": "topk"},
            "takes over plain momentum alone; type --optimizer sgd, momentum, adam, adamw, rmsprop or lion",
        ),
        ({"momentum": 0.5}, "--momentum has no effect: --optimizer muon has no momentum"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=line):
        train(tmp_path / "run", **MUON | given)
    assert not (tmp_path / "run").exists()


def test_a_point_has_no_matrices() -> None:
    line = "--optimizer muon: a point has no weight matrices; type --optimizer adamw"
    with pytest.raises(InputError, match=line):
        command.lines({"optimizer": "muon"}, {"function": "bowl"}, Alone())


def test_views_of_vectors_that_are_gone_are_never_used() -> None:
    """Windows of a larger array come and go, and new ones may have the identity of old ones."""
    layout = network_layout(dense_layers(SIZES, "tanh"))
    rule = build_parts.optimizer(Reference(), Config(**MUON), layout, slice(0, layout.size))
    rows, grads = np.ones((30, layout.size), np.float32), np.ones((30, layout.size), np.float32)
    for number in range(30):
        params, grad = rows[number], grads[number]
        rule.update(params, grad, control(0.1, 1.0, number + 1), params)
        del params, grad
        assert all((tensor.view(rows[number]) < 1).all() for tensor in layout.tensors)
