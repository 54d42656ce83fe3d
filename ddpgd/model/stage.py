"""A stage: some of a network's layers one after the other, with their buffers, forward and backward."""

from collections.abc import Sequence
from dataclasses import dataclass

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Rows
from ddpgd.kernels.kept import Kept
from ddpgd.kernels.ops import Ops
from ddpgd.model.layers import Layer, Mode, network_layout


@dataclass(frozen=True)
class Buffers:
    """The first R rows of a stage's buffers: its inputs and each layer's outputs, and the gradients of the latter.

    `inputs`: those of each layer in training, what dropout leaves of outputs; where there is none, outputs themselves.
    """

    outputs: list[Array]
    doutputs: list[Array]
    inputs: list[Array]


class Stage:
    """A slice of a network's layers, with buffers of at most `max_rows` rows.

    A slot of buffers holds what the layers put out for the rows of one pass until their gradients are computed; a pipeline
    has several passes under way, in a slot each.

    Attributes:
        layout: Places of its tensors in its vectors (layout.size,).
    """

    def __init__(self, ops: Ops, layers: Sequence[Layer], max_rows: int) -> None:
        self.layers = tuple(layers)
        self.layout = network_layout(layers)
        self._ops = ops
        self._max_rows = max_rows
        self._outputs: list[list[Array]] = []
        self._inputs: list[list[Array]] = []
        self._rows: dict[int, Rows] = {}
        self._doutputs = [ops.empty((max_rows, layer.num_outputs), ops.activation_dtype) for layer in layers]
        self._buffers: dict[tuple[int, int], Buffers] = {}
        self._views: Kept[list[list[Array]]] = Kept()
        self.buffers(max_rows)

    def buffers(self, num_rows: int, slot: int = 0) -> Buffers:
        """Returns windows of the buffers, the same for every call. outputs[0] takes x, doutputs[-1] takes dout."""
        key = slot, num_rows
        if key not in self._buffers:
            while len(self._outputs) <= slot:
                self._outputs.append(self._new_outputs())
                self._inputs.append(self._new_inputs())
            kinds = self._outputs[slot], self._doutputs, self._inputs[slot]
            outputs, doutputs, inputs = ([array[:num_rows] for array in arrays] for arrays in kinds)
            drops = [layer.dropout is not None for layer in self.layers]
            chosen = [own if dropped else out for own, out, dropped in zip(inputs, outputs, drops, strict=False)]
            self._buffers[key] = Buffers(outputs, doutputs, chosen)
        return self._buffers[key]

    def take(self, rows: Rows, slot: int) -> None:
        """Notes the samples of the pass in a slot, by which dropout draws."""
        self._rows[slot] = rows

    def forward(
        self, params: Array, weights: Array, num_rows: int, micro_batch: int, mode: Mode, slot: int = 0
    ) -> Array:
        """Returns the outputs (R, N) of the inputs that are in the buffers.

        Args:
            params: The vector (layout.size,).
            weights: What `Ops.round_weights` made of it.
        """
        views, rounded, buffers = self._views_of(params), self._views_of(weights), self.buffers(num_rows, slot)
        outputs = buffers.outputs
        for number, layer in enumerate(self.layers):
            x, out = outputs[number], outputs[number + 1]
            if mode is Mode.TRAINING:
                self._drop(layer, x, buffers.inputs[number], slot)
                x = buffers.inputs[number]
            layer.forward(self._ops, mode, x, views[number], rounded[number], micro_batch, out)
        return outputs[-1]

    def backward(
        self,
        weights: Array,
        num_rows: int,
        micro_batch: int,
        grads: Array,
        dx: Array | None = None,
        slot: int = 0,
        layers: range | None = None,
    ) -> None:
        """Fills grads (G, layout.size), and dx (R, K) if it is given, from the dout in the buffers.

        dx, by the input of the preceding layer's activation, is that stage's dout. Padding of grads is left as it is.
        `layers`: these alone, after those behind them. None: all.
        """
        rounded, dviews, buffers = self._views_of(weights), self._views_of(grads), self.buffers(num_rows, slot)
        before = [dx, *buffers.doutputs[:-1]]
        for number in reversed(range(len(self.layers)) if layers is None else layers):
            layer, below = self.layers[number], before[number]
            arrays = buffers.inputs[number], buffers.outputs[number], buffers.doutputs[number]
            layer.backward(self._ops, *arrays, rounded[number], micro_batch, dviews[number], below)
            if below is not None:
                self._drop(layer, below, below, slot)

    def _drop(self, layer: Layer, x: Array, out: Array, slot: int) -> None:
        """Applies the dropout of a layer's inputs, if it has one, to the columns that this rank has."""
        if layer.dropout is not None:
            own = layer.own_inputs
            self._ops.dropout(x[:, own], self._rows[slot], layer.dropout, own.start, out[:, own])

    def _new_outputs(self) -> list[Array]:
        ops, rows = self._ops, self._max_rows
        inputs = ops.empty((rows, self.layers[0].num_inputs), ops.activation_dtype)
        return [inputs, *(ops.empty((rows, layer.num_outputs), layer.output_dtype(ops)) for layer in self.layers)]

    def _new_inputs(self) -> list[Array]:
        """Returns a buffer for each layer: of no columns for those without dropout."""
        widths = (layer.num_inputs if layer.dropout else 0 for layer in self.layers)
        return [self._ops.empty((self._max_rows, width), self._ops.activation_dtype) for width in widths]

    def _views_of(self, vector: Array) -> list[list[Array]]:
        """Returns the views of each layer, made once for vectors that come back every step."""

        def cut() -> list[list[Array]]:
            views = iter(self.layout.views(vector))
            return [[next(views) for unit in layer.units for _ in unit] for layer in self.layers]

        return self._views.of([vector], cut)
