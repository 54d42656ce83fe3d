"""`ddpgd gradcheck`: a network's gradients beside finite differences in float64, layer by layer, and where they part."""

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.config.parsing import path
from ddpgd.config.schema import Config
from ddpgd.config.validation import validate
from ddpgd.errors import DdpgdError, InputError
from ddpgd.kernels.philox import Purpose, permutation, uniforms
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, TAIL_WORDS, Control, Tail
from ddpgd.lab.config_file import read_known
from ddpgd.model.layers import Dense, dense_layers
from ddpgd.model.network import Network
from ddpgd.params import initialise
from ddpgd.run import build_network

Vector = NDArray[Any]
"""float64."""

WORK_OPTIONS = ("hidden", "activation", "init", "loss", "input_pool", "seed")
"""Options of `train` that `gradcheck` has as well."""
_REFUSED = ("label_smoothing", "dropout", "input_dropout")
"""Options of the same loss that it has not."""

IMAGE_SHAPE = (28, 28)
NUM_ROWS = 8
MOST_ELEMENTS = 100
"""Elements of a tensor that are tried, drawn by the seed."""
TOLERANCE = 1e-5
"""Relative error from which on a gradient is wrong; differences in float64 are right to about 1e-8."""
_STEPS = (1e-4, 1e-5, 1e-6)
"""Of the difference, over 1 + |value|: the best counts, because a step may cross a corner of relu."""


class Found(NamedTuple):
    """The largest relative error of a gradient: by a tensor of a layer, or by its outputs before activation."""

    layer: str
    name: str
    num_elements: int
    error: float


class _Wrong(DdpgdError):
    """A gradient differs from finite differences."""

    exit_code = 1


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags that are not options of the configuration."""
    parser.add_argument(
        "--config", metavar="FILE.toml", type=path, help="options by name, as in a run's config.toml; flags win"
    )


def lines(parsed: Mapping[str, Any]) -> Iterator[str]:
    """Yields what to print of a check.

    Raises:
        InputError: The configuration is wrong.
        DdpgdError: A gradient is wrong; the line names the layer.
    """
    file = read_known(parsed["config"], "gradcheck", WORK_OPTIONS, _REFUSED) if "config" in parsed else {}
    config = Config(**file | dict(parsed["given"]))
    validate(config)
    if file.get("shards", 1) > 1:
        raise InputError("gradcheck: layers in shards compute what whole ones do; drop shards from the file")
    found = check(config, dense_layers(build_network.sizes(config, IMAGE_SHAPE), config.activation))
    yield f"{'layer':10} {'gradient by':22} {'elements':>8} {'largest error':>14}"
    for one in found:
        mark = "  WRONG" if one.error >= TOLERANCE else ""
        yield f"{one.layer:10} {one.name:22} {one.num_elements:8,} {one.error:14.2g}{mark}"
    if wrong := culprits(found):
        raise _Wrong(f"gradcheck: {'; '.join(wrong)}")
    yield f"gradcheck: all gradients equal finite differences, to {max(one.error for one in found):.1g}"


def check(config: Config, layers: Sequence[Dense]) -> list[Found]:
    """Returns what was found of each layer, the last one first: of its outputs before activation, then of its tensors."""
    network = Network(Reference(np.float64), layers, config.loss, NUM_ROWS)
    noise = 0.2 * uniforms(config.seed, Purpose.SYNTHETIC, 0, network.layout.size) - 0.1  # so that no bias is 0
    params: Vector = initialise(network.layout, config.init, config.seed) + noise
    several, single = (_Rows(network, params, config.seed, num_rows) for num_rows in (NUM_ROWS, 1))
    found = []
    for number, layer in reversed(list(enumerate(layers))):
        own = {parameter.name for unit in layer.units for parameter in unit}
        tensors = [tensor for tensor in network.layout.tensors if tensor.name in own]
        name, bias = layer.name, tensors[-1]
        # What is added to a bias is added to the outputs: for a single row the derivatives are the same.
        found.append(_compare(name, "outputs", bias.view(params), single.by_outputs[number], single, config.seed))
        found += [
            _compare(name, one.name, one.view(params), one.view(several.grads), several, config.seed) for one in tensors
        ]
    return found


def culprits(found: list[Found]) -> list[str]:
    """Returns what is wrong, in words; what follows from a wrong gradient behind it is left out."""
    told: list[str] = []
    behind = "the loss"
    for one in found:
        if one.name == "outputs":
            if one.error >= TOLERANCE:
                by = "logits" if behind == "the loss" else "inputs"
                return [*told, f"{behind}: its gradient by its {by} is wrong (relative error {one.error:.2g})"]
            behind = one.layer
        elif one.error >= TOLERANCE:
            told.append(f"{one.layer}: its gradient by {one.name} is wrong (relative error {one.error:.2g})")
    return told


class _Rows:
    """The loss of some drawn samples, and its gradients as the network computes them.

    Attributes:
        grads: By params, (n,).
        by_outputs: By each layer's outputs before activation, of the first row, (N,).
    """

    def __init__(self, network: Network, params: Vector, seed: int, num_rows: int) -> None:
        layers, self.grads = network.stage.layers, np.zeros_like(params)
        x = uniforms(seed, Purpose.SYNTHETIC, 1, num_rows * layers[0].num_inputs).reshape(num_rows, -1)
        labels = (uniforms(seed, Purpose.SYNTHETIC, 2, num_rows) * layers[-1].num_outputs).astype(np.int64)
        self._network, self._params, self._samples = network, params, (2 * x - 1, labels)
        self._control, self._tails = np.zeros(CONTROL_WORDS), np.zeros((1, TAIL_WORDS))
        self._control[Control.LOSS_SCALE] = 1
        self.loss()
        network.stage.backward(params, num_rows, num_rows, self.grads.reshape(1, -1))
        self.by_outputs = [dout[0].copy() for dout in network.stage.buffers(num_rows).doutputs]

    def loss(self) -> float:
        """Returns the sum of losses, from the params as they are."""
        num_rows = self._network.set_inputs(*self._samples)
        self._network.forward(self._params, self._params, num_rows, num_rows)
        self._network.loss(num_rows, num_rows, self._control, self._tails)
        return float(self._tails[0, Tail.LOSS_SUM])


def _compare(layer: str, name: str, values: Vector, grads: Vector, rows: _Rows, seed: int) -> Found:
    """Compares the gradient by some of `values`, which are changed and put back."""
    chosen = permutation(seed, 0, values.size)[:MOST_ELEMENTS].tolist()
    places = [np.unravel_index(number, values.shape) for number in chosen]
    scale = max(1e-6, float(np.abs(grads).max()))
    error = max(_error(values, place, float(grads[place]), rows, scale) for place in places)
    return Found(layer, name, len(places), error)


def _error(values: Vector, place: tuple[np.intp, ...], grad: float, rows: _Rows, scale: float) -> float:
    """Returns the error of a gradient by the value at a place, over its size or a thousandth of `scale`."""
    before, errors = float(values[place]), []
    for step in _STEPS:
        aside = step * (1 + abs(before))
        losses = []
        for values[place] in (before + aside, before - aside):
            losses.append(rows.loss())
        values[place] = before
        numeric = (losses[0] - losses[1]) / (2 * aside)
        errors.append(abs(grad - numeric) / max(abs(grad), abs(numeric), 1e-3 * scale))
    return min(errors)
