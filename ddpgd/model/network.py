"""Networks: a stage of layers with its buffers, forward and backward; and the network of all layers, with its loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.ops import Array, Ops
from ddpgd.model.layers import Layer, Mode, network_layout

PIXEL_MEAN = 0.1307
PIXEL_STD = 0.3081
"""Mean and standard deviation of MNIST's training pixels / 255, to four digits: part of what a network is trained on."""

LOSSES = {"cross-entropy": "cross_entropy", "mse": "mean_squared_error"}
"""Loss functions, by the value of `--loss`: the op of each."""


@dataclass(frozen=True)
class Buffers:
    """The first R rows of a stage's buffers: its inputs and each layer's outputs, and the gradients of the latter."""

    outputs: list[Array]
    doutputs: list[Array]


class Stage:
    """A slice of a network's layers, with buffers of at most `max_rows` rows.

    Attributes:
        layout: Places of its tensors in its vectors (layout.size,).
    """

    def __init__(self, ops: Ops, layers: Sequence[Layer], max_rows: int) -> None:
        self.layers = tuple(layers)
        self.layout = network_layout(layers)
        self._ops = ops
        self._outputs = [ops.empty((max_rows, layers[0].num_inputs), ops.activation_dtype)]
        self._outputs += [ops.empty((max_rows, layer.num_outputs), layer.output_dtype(ops)) for layer in layers]
        self._doutputs = [ops.empty((max_rows, layer.num_outputs), ops.activation_dtype) for layer in layers]
        self._buffers: dict[int, Buffers] = {}
        self._views: dict[int, tuple[Array, list[list[Array]]]] = {}

    def buffers(self, num_rows: int) -> Buffers:
        """Returns windows of the buffers, the same for every call. outputs[0] takes x, doutputs[-1] takes dout."""
        if num_rows not in self._buffers:
            outputs, doutputs = ([array[:num_rows] for array in arrays] for arrays in (self._outputs, self._doutputs))
            self._buffers[num_rows] = Buffers(outputs, doutputs)
        return self._buffers[num_rows]

    def forward(self, params: Array, weights: Array, num_rows: int, micro_batch: int, mode: Mode) -> Array:
        """Returns the outputs (R, N) of the inputs that are in the buffers.

        Args:
            params: The vector (layout.size,).
            weights: What `Ops.round_weights` made of it.
        """
        views, rounded, outputs = self._views_of(params), self._views_of(weights), self.buffers(num_rows).outputs
        for number, layer in enumerate(self.layers):
            x, out = outputs[number], outputs[number + 1]
            layer.forward(self._ops, mode, x, views[number], rounded[number], micro_batch, out)
        return outputs[-1]

    def backward(self, weights: Array, num_rows: int, micro_batch: int, grads: Array, dx: Array | None = None) -> None:
        """Fills grads (G, layout.size), and dx (R, K) if it is given, from the dout in the buffers.

        dx, by the input of the preceding layer's activation, is that stage's dout. Padding of grads is left as it is.
        """
        rounded, dviews, buffers = self._views_of(weights), self._views_of(grads), self.buffers(num_rows)
        before = [dx, *buffers.doutputs[:-1]]
        for number in reversed(range(len(self.layers))):
            x, dout = buffers.outputs[number], buffers.doutputs[number]
            arguments = x, dout, rounded[number], micro_batch, dviews[number], before[number]
            self.layers[number].backward(self._ops, *arguments)

    def _views_of(self, vector: Array) -> list[list[Array]]:
        """The views of each layer, cached for vectors that come back every step; holding the vector keeps its id its own."""
        cached = self._views.get(id(vector))
        if cached is None:
            views = iter(self.layout.views(vector))
            by_layer = [[next(views) for _ in layer.parameters] for layer in self.layers]
            cached = self._views[id(vector)] = (vector, by_layer)
        return cached[1]


class Network:
    """All `layers`, and the loss at their end.

    It computes R rows at once, which are one or more micro-batches of `micro_batch` rows, the last perhaps shorter;
    buffers hold at most `max_rows`. `params` (layout.size,) are the master vector; `weights`, what
    `Ops.round_weights` made of it.
    """

    def __init__(self, ops: Ops, layers: Sequence[Layer], loss: str, max_rows: int) -> None:
        self.stage = Stage(ops, layers, max_rows)
        self.layout = self.stage.layout
        self._ops = ops
        self._loss = attrgetter(LOSSES[loss])(ops)
        self._all_labels = ops.empty((max_rows,), np.int64)
        self._labels: dict[int, Array] = {}

    def load(self, images: Array, labels: Array, order: Array, cursor: Array, offset: int, num_rows: int) -> None:
        """Gathers and normalises `num_rows` samples, from order[cursor[FIRST] + offset] on; see Ops.gather_normalise."""
        x, y = self.stage.buffers(num_rows).outputs[0], self._labels_of(num_rows)
        self._ops.gather_normalise(images, labels, order, cursor, offset, PIXEL_MEAN, PIXEL_STD, x, y)

    def set_inputs(self, x: Array, labels: Array) -> int:
        """Takes ready inputs x (R, K) and labels int64 (R,); returns R."""
        num_rows = len(labels)
        self.stage.buffers(num_rows).outputs[0][...] = x
        self._labels_of(num_rows)[...] = labels
        return num_rows

    def forward(
        self, params: Array, weights: Array, num_rows: int, micro_batch: int, mode: Mode = Mode.EVALUATION
    ) -> Array:
        """Returns the logits (R, C) of the samples loaded last."""
        return self.stage.forward(params, weights, num_rows, micro_batch, mode)

    def loss(
        self,
        params: Array,
        weights: Array,
        num_rows: int,
        micro_batch: int,
        control: Array,
        tails: Array,
        mode: Mode = Mode.EVALUATION,
    ) -> None:
        """Runs forward pass and loss of the samples loaded last: fills `tails` (G, TAIL_WORDS), one row a micro-batch."""
        logits = self.forward(params, weights, num_rows, micro_batch, mode)
        dlogits = self.stage.buffers(num_rows).doutputs[-1]
        self._loss(logits, self._labels_of(num_rows), micro_batch, control, dlogits, tails)

    def gradient(
        self,
        params: Array,
        weights: Array,
        num_rows: int,
        micro_batch: int,
        control: Array,
        grads: Array,
        tails: Array,
    ) -> None:
        """Runs `loss`, and puts each micro-batch's gradient of the loss sum, times LOSS_SCALE, into `grads`.

        `grads` (G, layout.size); padding is left as it is.
        """
        self.loss(params, weights, num_rows, micro_batch, control, tails, Mode.TRAINING)
        self.stage.backward(weights, num_rows, micro_batch, grads)

    def non_finite_tensor(self, grads: Array) -> str:
        """Returns the first tensor in which `grads` holds an infinity or a NaN; empty if all are finite."""
        host: NDArray[np.float32] = self._ops.to_host(grads)
        for tensor in self.layout.tensors:
            if not np.isfinite(tensor.view(host)).all():
                return tensor.name
        return ""

    def _labels_of(self, num_rows: int) -> Array:
        if num_rows not in self._labels:
            self._labels[num_rows] = self._all_labels[:num_rows]
        return self._labels[num_rows]
