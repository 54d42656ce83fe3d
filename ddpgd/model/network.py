"""Networks: a stage of layers with its buffers, forward and backward; and the network of all layers, with its loss."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Rows
from ddpgd.kernels.ops import Ops
from ddpgd.model.layers import Layer, Mode, layer_starts, network_layout

PIXEL_MEAN = 0.1307
PIXEL_STD = 0.3081
"""Mean and standard deviation of MNIST's training pixels / 255, to four digits: part of what a network is trained on."""


class Loss(NamedTuple):
    """A row of `LOSSES`.

    Attributes:
        op: Its name in `Ops`.
        options: Names of the options whose values follow the op's other arguments in training; evaluations go without.
    """

    op: str
    options: tuple[str, ...] = ()


LOSSES = {"cross-entropy": Loss("cross_entropy", ("label_smoothing",)), "mse": Loss("mean_squared_error")}
"""Loss functions, by the value of `--loss`."""


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
        self._views: dict[int, tuple[Array, list[list[Array]]]] = {}
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
        """The views of each layer, cached for vectors that come back every step; holding the vector keeps its id its own."""
        cached = self._views.get(id(vector))
        if cached is None:
            views = iter(self.layout.views(vector))
            by_layer = [[next(views) for unit in layer.units for _ in unit] for layer in self.layers]
            cached = self._views[id(vector)] = (vector, by_layer)
        return cached[1]


class Network:
    """All `layers`, and the loss at their end; or the layers of one stage of a pipeline, of which the last has the loss.

    It computes R rows at once, which are one or more micro-batches of `micro_batch` rows, the last perhaps shorter;
    buffers hold at most `max_rows`. `params` (layout.size,) are the master vector; `weights`, what
    `Ops.round_weights` made of it. `slot`: see `Stage`.
    """

    def __init__(
        self,
        ops: Ops,
        layers: Sequence[Layer],
        loss: str,
        max_rows: int,
        has_inputs: bool = True,
        loss_options: Sequence[float] = (),
    ) -> None:
        """
        Args:
            ops: Where it is computed.
            layers: Its own.
            loss: A key of `LOSSES`.
            max_rows: Most rows at once.
            has_inputs: False in stages of a pipeline whose inputs are not samples; these are then of no pixels.
            loss_options: Values of the loss's options, for training; none: the plain loss.
        """
        self.stage = Stage(ops, layers, max_rows)
        self.layout = self.stage.layout
        self._no_inputs = None if has_inputs else ops.empty((max_rows, 0), ops.activation_dtype)
        self._ops = ops
        self._loss = attrgetter(LOSSES[loss].op)(ops)
        self._loss_options = {Mode.TRAINING: loss_options, Mode.EVALUATION: ()}
        self._max_rows = max_rows
        self._all_labels: list[Array] = []
        self._labels: dict[tuple[int, int], Array] = {}
        self._labels_of(max_rows, 0)

    def load(
        self,
        images: Array,
        labels: Array,
        order: Array,
        cursor: Array,
        offset: int,
        num_rows: int,
        slot: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Gathers and normalises `num_rows` samples, from order[cursor[FIRST] + offset] on; see Ops.gather_normalise.

        `augmentation`: as `Ops.gather_augment` does it; None: the images as they are.
        """
        x, y = self.stage.buffers(num_rows, slot).outputs[0], self._labels_of(num_rows, slot)
        if self._no_inputs is not None:
            x = self._no_inputs[:num_rows]
        self.stage.take(Rows(order, cursor, offset), slot)
        arguments = images, labels, order, cursor, offset, PIXEL_MEAN, PIXEL_STD
        if augmentation is None:
            self._ops.gather_normalise(*arguments, x, y)
        else:
            self._ops.gather_augment(*arguments, augmentation, x, y)

    def set_inputs(self, x: Array, labels: Array) -> int:
        """Takes ready inputs x (R, K) and labels int64 (R,); returns R."""
        num_rows = len(labels)
        self.stage.buffers(num_rows).outputs[0][...] = x
        self._labels_of(num_rows, 0)[...] = labels
        return num_rows

    def forward(
        self,
        params: Array,
        weights: Array,
        num_rows: int,
        micro_batch: int,
        mode: Mode = Mode.EVALUATION,
        slot: int = 0,
    ) -> Array:
        """Returns the logits (R, C), or the stage's outputs, of the samples loaded last."""
        return self.stage.forward(params, weights, num_rows, micro_batch, mode, slot)

    def loss(
        self,
        num_rows: int,
        micro_batch: int,
        control: Array,
        tails: Array,
        mode: Mode = Mode.EVALUATION,
        slot: int = 0,
    ) -> None:
        """Computes the loss of what `forward` put out: fills `tails` (G, TAIL_WORDS), one row a micro-batch, and dlogits."""
        buffers = self.stage.buffers(num_rows, slot)
        labels, logits, dlogits = self._labels_of(num_rows, slot), buffers.outputs[-1], buffers.doutputs[-1]
        self._loss(logits, labels, micro_batch, control, dlogits, tails, *self._loss_options[mode])

    def gradient(
        self,
        params: Array,
        weights: Array,
        num_rows: int,
        micro_batch: int,
        control: Array,
        grads: Array,
        tails: Array,
        layers: range | None = None,
    ) -> None:
        """Computes loss and gradient of the samples loaded last: of each micro-batch's loss sum, times LOSS_SCALE.

        `grads` (G, layout.size); padding is left as it is. `layers`: their part of the gradient alone, the last layers
        first, which begin with the loss. None: all.
        """
        if layers is None or layers.stop == len(self.stage.layers):
            self.forward(params, weights, num_rows, micro_batch, Mode.TRAINING)
            self.loss(num_rows, micro_batch, control, tails, Mode.TRAINING)
        self.stage.backward(weights, num_rows, micro_batch, grads, layers=layers)

    def layers_in(self, span: slice) -> range:
        """Returns the layers of a part of the layout, which begins with one and ends with one."""
        starts = layer_starts(self.stage.layers)
        return range(bisect_left(starts, span.start), bisect_left(starts, span.stop))

    def non_finite_tensor(self, grads: Array) -> str:
        """Returns the first tensor in which `grads` holds an infinity or a NaN; empty if all are finite."""
        host: NDArray[np.float32] = self._ops.to_host(grads)
        for tensor in self.layout.tensors:
            if not np.isfinite(tensor.view(host)).all():
                return tensor.name
        return ""

    def _labels_of(self, num_rows: int, slot: int) -> Array:
        key = slot, num_rows
        if key not in self._labels:
            while len(self._all_labels) <= slot:
                self._all_labels.append(self._ops.empty((self._max_rows,), np.int64))
            self._labels[key] = self._all_labels[slot][:num_rows]
        return self._labels[key]
