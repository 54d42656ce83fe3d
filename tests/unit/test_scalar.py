"""The scalar engine: derivatives, networks equal to the trainer's, and the same bits on any number of ranks."""

import doctest
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ddpgd.comm.transports import threads
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, TAIL_WORDS, Control, Tail
from ddpgd.lab import functions, scalar, scalar_parallel
from ddpgd.lab.scalar import FUNCTIONS, MLP, Value, draw, graph
from ddpgd.model.layers import dense_layers
from ddpgd.model.network import Network

OPERATIONS = {
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x * y": lambda x, y: x * y,
    "x / y": lambda x, y: x / y,
    "x ** y": lambda x, y: x**y,
    "x ** 3": lambda x, _: x**3,
    "x ** 0": lambda x, _: x**0 * x,
    "2 / x": lambda x, _: 2 / x,
    "2 - x": lambda x, _: 2 - x,
    "2 + x": lambda x, _: 2 + x,
    "-x": lambda x, _: -x,
    "x used three times": lambda x, y: (x * x + y) * x,
}


@pytest.mark.parametrize("name", [*OPERATIONS, *FUNCTIONS])
def test_derivatives_equal_finite_differences(name: str) -> None:
    operation = OPERATIONS.get(name) or (lambda x, _: x.apply(name))
    for point in ((0.7, 1.9), (2.3, 0.4)):
        x, y = map(Value, point)
        operation(x, y).backward()
        for number, value in enumerate((x, y)):
            above, below = (
                operation(*(Value(one + sign * 1e-6 * (place == number)) for place, one in enumerate(point))).data
                for sign in (1, -1)
            )
            assert value.grad == pytest.approx((above - below) / 2e-6, abs=1e-8)


def test_a_weight_is_worked_out() -> None:
    """loss = (w x - y)^2 with x = 2, y = 6: each step leaves a fifth of the error."""
    w, losses = Value(1.0), []
    for _ in range(3):
        loss = (w * 2 - 6) ** 2
        losses.append(loss.data)
        w.grad = 0.0
        loss.backward()
        w.data -= 0.1 * w.grad
    assert losses == pytest.approx([16, 0.64, 0.0256], rel=1e-12)


def test_gradients_of_several_results_add_up() -> None:
    x = Value(3.0)
    (x * x).backward()
    (2 * x).backward()
    assert x.grad == 8


def test_a_long_chain_needs_no_stack() -> None:
    x = total = Value(1.0)
    for _ in range(20_000):
        total = total + x
    total.backward()
    assert x.grad == 20_001


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_a_network_has_the_gradient_of_the_trainer(activation: str, loss: str) -> None:
    widths, num_rows = (5, 4, 3, 10), 6
    own, network = MLP(widths, activation), Network(
        Reference(np.float64), dense_layers(widths, activation), loss, num_rows
    )  # fmt: skip
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((num_rows, 5)), rng.integers(0, 10, num_rows)
    params = np.zeros(network.layout.size)
    for layer, (weight, bias) in zip(own.layers, _pairs(network.layout.views(params)), strict=True):
        for column, (*weights, constant) in enumerate(layer):
            constant.data = rng.standard_normal()
            weight[:, column], bias[column] = [one.data for one in weights], constant.data
    network.set_inputs(x, labels)
    grads, tails, control = np.zeros((1, params.size)), np.zeros((1, TAIL_WORDS)), np.zeros(CONTROL_WORDS)
    control[Control.LOSS_SCALE] = 1
    network.gradient(params, params, num_rows, num_rows, control, grads, tails)
    total = sum((_loss(own(row.tolist()), int(label), loss) for row, label in zip(x, labels, strict=True)), Value(0))
    total.backward()
    assert total.data == pytest.approx(tails[0, Tail.LOSS_SUM], rel=1e-12)
    for layer, (weight, bias) in zip(own.layers, _pairs(network.layout.views(grads[0])), strict=True):
        for column, (*weights, constant) in enumerate(layer):
            found = [one.grad for one in (*weights, constant)]
            np.testing.assert_allclose(found, [*weight[:, column], bias[column]], rtol=1e-12, atol=1e-14)


def _pairs(views: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(views[::2], views[1::2], strict=True))


def _loss(outputs: list[Value], label: int, name: str) -> Value:
    if name == "mse":
        errors = [(one - float(number == label)) ** 2 for number, one in enumerate(outputs)]
        return sum(errors, Value(0)) / len(outputs)
    return sum((one.apply("exp") for one in outputs), Value(0)).apply("log") - outputs[label]


@pytest.mark.parametrize("num_samples", [1, 3, 8, 13])
def test_ranks_have_the_bits_of_one(num_samples: int) -> None:
    rng = np.random.default_rng(num_samples)
    x = rng.standard_normal((num_samples, 3)).tolist()

    def work(transport: threads.Threads) -> tuple[float, list[float]]:
        network = MLP((3, 4, 1))
        network.params[0].grad = 7.0
        loss, grads = scalar_parallel.gradient(
            transport, num_samples, lambda sample: (network(x[sample])[0] - 0.3) ** 2, network.params
        )
        assert network.params[0].grad == 7
        return loss, grads.tolist()

    (alone,) = threads.run(1, work)
    assert alone[0] > 0
    for world_size in (2, 3, 4, 7):
        assert threads.run(world_size, work) == [alone] * world_size


def test_a_graph_shows_every_value() -> None:
    a, b = Value(2.0, "a<b"), Value(-3.0, "b")
    loss = (a * b + a) ** 2
    loss.backward()
    picture = ElementTree.fromstring(draw(loss))
    texts = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert len(texts) == 2 * len(graph(loss))
    assert {"a<b = 2", f"gradient {a.grad:.4g}", "b = -3"} <= set(texts)
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}path"))) == sum(len(one.operands) for one in graph(loss))


def test_what_has_no_value_raises() -> None:
    for wrong in (lambda: Value(-8.0) ** 0.5, lambda: Value(0.0) ** -1, lambda: Value(-1.0).apply("log")):
        with pytest.raises(ValueError, match="domain"):
            wrong()
    with pytest.raises(OverflowError):
        Value(1e200) ** 2
    assert math.isinf((Value(1e200) * 1e200).data)


def test_it_stays_short() -> None:
    lengths = {module: len(Path(module.__file__).read_text().splitlines()) for module in (scalar, scalar_parallel)}
    assert lengths[scalar] <= 150
    assert lengths[scalar_parallel] <= 50


@pytest.mark.parametrize("module", [scalar, functions])
def test_examples_run(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert not found.failed
