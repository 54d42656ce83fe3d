"""Layers as values: what each declares and computes, in one table; a network is a tuple of them, a stage a slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import accumulate, pairwise
from typing import ClassVar, Protocol

import numpy as np

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Dropout
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout, Parameter, Unit, layout_of

ACTIVATIONS = ("relu", "tanh", "sigmoid")
"""Activation functions of hidden layers; backends have a formula for each."""


class Mode(Enum):
    """The purpose of a forward pass."""

    TRAINING = auto()
    EVALUATION = auto()


class Layer(Protocol):
    """A layer. R rows are one or more micro-batches of `micro_batch` rows, the last perhaps shorter.

    Gradients between layers are those by the input of a layer's activation: a layer's `dx` is its predecessor's `dout`,
    because backends multiply by the derivative of the predecessor's activation in the same operation.

    Attributes:
        name: Its name, of which the names of its tensors are made.
        units: Names, shapes and initialisation of its tensors, shard by shard.
        num_inputs, num_outputs: The widths K and N.
        activation: The activation of its outputs; "identity": none.
        own_outputs: The columns of its outputs that this rank has, all or those of its shards.
        own_inputs: The columns of its inputs that this rank has, before the layer gathers others.
        dropout: That of its inputs in training.
        fusable: True if it calls ops alone that `Ops.fused` allows.
    """

    @property
    def name(self) -> str: ...

    @property
    def units(self) -> tuple[Unit, ...]: ...

    @property
    def activation(self) -> str: ...

    @property
    def own_outputs(self) -> slice: ...

    @property
    def fusable(self) -> bool: ...

    @property
    def num_inputs(self) -> int: ...

    @property
    def num_outputs(self) -> int: ...

    @property
    def own_inputs(self) -> slice: ...

    @property
    def dropout(self) -> Dropout | None: ...

    def output_dtype(self, ops: Ops) -> np.dtype[np.generic]:
        """Returns the dtype of its outputs."""

    def forward(
        self, ops: Ops, mode: Mode, x: Array, params: list[Array], weights: list[Array], micro_batch: int, out: Array
    ) -> None:
        """Fills out (R, N) from x (R, K). `params` are its tensors, `weights` what `Ops.round_weights` made of them."""

    def backward(
        self,
        ops: Ops,
        x: Array,
        activated: Array,
        dout: Array,
        weights: list[Array],
        micro_batch: int,
        grads: list[Array],
        dx: Array | None,
    ) -> None:
        """Fills grads (G, ...), one row a micro-batch, and dx (R, K) if it is given, from dout (R, N).

        `activated`: what the preceding activation put out, x before dropout; dx is made without it.
        """


@dataclass(frozen=True)
class Dense:
    """`Layer`: out = activation(x weight + bias), weight (K, N), bias (N,).

    Attributes:
        input_activation: The activation of which x is the output; "identity" for the inputs of a network.
    """

    name: str
    num_inputs: int
    num_outputs: int
    activation: str
    input_activation: str = "identity"
    dropout: Dropout | None = None
    fusable: ClassVar[bool] = True

    @property
    def own_inputs(self) -> slice:
        return slice(0, self.num_inputs)

    @property
    def units(self) -> tuple[Unit, ...]:
        shape, is_hidden = (self.num_inputs, self.num_outputs), self.activation != "identity"
        weight = Parameter(f"{self.name}.weight", shape, is_random=True, is_hidden=is_hidden)
        return ((weight, Parameter(f"{self.name}.bias", (self.num_outputs,))),)

    @property
    def own_outputs(self) -> slice:
        return slice(0, self.num_outputs)

    def output_dtype(self, ops: Ops) -> np.dtype[np.generic]:
        return ops.vector_dtype if self.activation == "identity" else ops.activation_dtype

    def forward(
        self, ops: Ops, mode: Mode, x: Array, params: list[Array], weights: list[Array], micro_batch: int, out: Array
    ) -> None:
        ops.dense_forward(x, weights[:1], params[1:], self.activation, micro_batch, out)

    def backward(
        self,
        ops: Ops,
        x: Array,
        activated: Array,
        dout: Array,
        weights: list[Array],
        micro_batch: int,
        grads: list[Array],
        dx: Array | None,
    ) -> None:
        ops.dense_backward_params(x, dout, micro_batch, grads[0], grads[1])
        if dx is not None:
            ops.dense_backward_input(dout, weights[:1], activated, self.input_activation, micro_batch, dx)


LAYERS: dict[str, type[Layer]] = {"dense": Dense}
"""Kinds of layers, by name."""


def dense_layers(sizes: Sequence[int], activation: str, dropouts: Sequence[Dropout | None] = ()) -> tuple[Dense, ...]:
    """Returns dense layers of the given `sizes` (inputs, hidden ..., outputs), `activation` between them.

    `dropouts`: that of each layer's inputs; empty: none.
    """
    last = len(sizes) - 1
    return tuple(
        Dense(
            f"dense{number}",
            num_inputs,
            num_outputs,
            "identity" if number == last else activation,
            "identity" if number == 1 else activation,
            dropouts[number - 1] if dropouts else None,
        )
        for number, (num_inputs, num_outputs) in enumerate(pairwise(sizes), start=1)
    )


def network_layout(layers: Sequence[Layer]) -> Layout:
    """Returns the layout of the tensors that layers declare, in their order."""
    return layout_of(unit for layer in layers for unit in layer.units)


def layer_starts(layers: Sequence[Layer]) -> list[int]:
    """Returns the place in their layout at which each of the layers starts: the first element of a block."""
    units, counts = network_layout(layers).units, (len(layer.units) for layer in layers[:-1])
    return [units[number].start for number in accumulate(counts, initial=0)]
