"""Layers: each one's gradients equal finite differences, and a network cut into stages has the bits of the whole."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.kernels.reference.backend import Reference
from ddpgd.model.layers import ACTIVATIONS, LAYERS, Dense, Layer, Mode, dense_layers
from ddpgd.model.stage import Stage
from ddpgd.params import initialise

Array = NDArray[Any]

CASES: dict[str, Callable[[str], Layer]] = {
    "dense": lambda activation: Dense("dense1", 5, 4, "identity", input_activation=activation)
}
# The derivative of each activation by what it is applied to, from its output.
SLOPES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: (x > 0) * 1.0,
    "tanh": lambda x: 1 - x**2,
    "sigmoid": lambda x: x * (1 - x),
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_every_layer_and_activation_has_a_case() -> None:
    assert CASES.keys() == LAYERS.keys()
    assert SLOPES.keys() == set(ACTIVATIONS)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", Mode)
def test_gradients_equal_finite_differences(kind: str, activation: str, mode: Mode, rng: np.random.Generator) -> None:
    """Gradients of sum(dout * out), by the tensors and by the inputs."""
    num_rows, layer = 7, CASES[kind](activation)
    stage = Stage(Reference(np.float64), [layer], num_rows)
    params = rng.standard_normal(stage.layout.size)
    buffers, grads = stage.buffers(num_rows), np.zeros((1, stage.layout.size))
    x, dout = buffers.outputs[0], buffers.doutputs[0]
    x[...], dout[...] = rng.uniform(0.1, 0.9, x.shape), rng.standard_normal(dout.shape)
    dx = np.zeros_like(x)

    def weighted() -> float:
        return float((stage.forward(params, params, num_rows, num_rows, mode) * dout).sum())

    weighted()
    stage.backward(params, num_rows, num_rows, grads, dx)
    for tensor in stage.layout.tensors:
        np.testing.assert_allclose(tensor.view(grads[0]), _numeric(weighted, tensor.view(params)), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(dx, _numeric(weighted, x) * SLOPES[activation](x), rtol=1e-7, atol=1e-8)


def _numeric(function: Callable[[], float], values: Array, step: float = 1e-5) -> Array:
    found = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        before = values[place]
        values[place] = before + step
        above = function()
        values[place] = before - step
        found[place] = (above - function()) / (2 * step)
        values[place] = before
    return found


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_stages_have_the_bits_of_the_whole(cut: int, activation: str, rng: np.random.Generator) -> None:
    ops, layers, num_rows = Reference(), dense_layers((30, 20, 15, 10), activation), 12
    whole, front, back = (Stage(ops, part, num_rows) for part in (layers, layers[:cut], layers[cut:]))
    params = initialise(whole.layout, "he", 1)
    vectors = [np.zeros(stage.layout.size, np.float32) for stage in (front, back)]
    views = [view for stage, vector in zip((front, back), vectors, strict=True) for view in stage.layout.views(vector)]
    for view, given in zip(views, whole.layout.views(params), strict=True):
        view[...] = given
    x, dout = rng.standard_normal((num_rows, 30)), rng.standard_normal((num_rows, 10))
    whole.buffers(num_rows).outputs[0][...] = front.buffers(num_rows).outputs[0][...] = x
    out = whole.forward(params, params, num_rows, 4, Mode.TRAINING)
    back.buffers(num_rows).outputs[0][...] = front.forward(vectors[0], vectors[0], num_rows, 4, Mode.TRAINING)
    np.testing.assert_array_equal(back.forward(vectors[1], vectors[1], num_rows, 4, Mode.TRAINING), out)
    whole.buffers(num_rows).doutputs[-1][...] = back.buffers(num_rows).doutputs[-1][...] = dout
    grads = [np.zeros((3, stage.layout.size), np.float32) for stage in (whole, front, back)]
    whole.backward(params, num_rows, 4, grads[0])
    back.backward(vectors[1], num_rows, 4, grads[2], front.buffers(num_rows).doutputs[-1])
    front.backward(vectors[0], num_rows, 4, grads[1])
    parts = front.layout.views(grads[1]) + back.layout.views(grads[2])
    for part, wanted in zip(parts, whole.layout.views(grads[0]), strict=True):
        np.testing.assert_array_equal(part, wanted)
