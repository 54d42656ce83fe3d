"""The network: a multi-layer perceptron's forward pass, loss and backward pass, on views of params and grads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.ops import Array, Ops
from ddpgd.params import dense_layout

PIXEL_MEAN = 0.1307
PIXEL_STD = 0.3081
"""Mean and standard deviation of MNIST's training pixels / 255, to four digits: part of what a network is trained on."""


class MultilayerPerceptron:
    """Dense layers of the given `sizes` (inputs, hidden ..., classes), `activation` between them, a loss at the end.

    It computes R rows at once, which are one or more micro-batches of `micro_batch` rows, the last perhaps shorter;
    buffers hold at most `max_rows`. `params` (layout.size,) are the master vector; `weights`, what
    `Ops.round_weights` made of it.
    """

    def __init__(self, ops: Ops, sizes: Sequence[int], activation: str, loss: str, max_rows: int) -> None:
        self.layout = dense_layout(sizes)
        self._ops = ops
        self._activations = [activation] * (len(sizes) - 2) + ["identity"]
        self._loss = {"cross-entropy": ops.cross_entropy, "mse": ops.mean_squared_error}[loss]
        self._outputs = [ops.empty((max_rows, size), ops.activation_dtype) for size in sizes[:-1]]
        self._outputs.append(ops.empty((max_rows, sizes[-1]), ops.vector_dtype))
        self._doutputs = [ops.empty((max_rows, size), ops.activation_dtype) for size in sizes[1:]]
        self._labels = ops.empty((max_rows,), np.int64)
        self._buffers: dict[int, _Buffers] = {}
        self._views: dict[int, tuple[Array, list[Array]]] = {}

    def load(self, images: Array, labels: Array, order: Array, cursor: Array, offset: int, num_rows: int) -> None:
        """Gathers and normalises `num_rows` samples, from order[cursor[FIRST] + offset] on; see Ops.gather_normalise."""
        buffers = self._buffers_of(num_rows)
        x, y = buffers.outputs[0], buffers.labels
        self._ops.gather_normalise(images, labels, order, cursor, offset, PIXEL_MEAN, PIXEL_STD, x, y)

    def set_inputs(self, x: Array, labels: Array) -> int:
        """Takes ready inputs x (R, K) and labels int64 (R,); returns R."""
        num_rows = len(labels)
        self._outputs[0][:num_rows] = x
        self._labels[:num_rows] = labels
        return num_rows

    def forward(self, params: Array, weights: Array, num_rows: int, micro_batch: int) -> Array:
        """The logits (R, C) of the samples loaded last."""
        views, outputs = self._views_of(params), self._buffers_of(num_rows).outputs
        rounded = self._views_of(weights)
        for layer, activation in enumerate(self._activations):
            weight, bias = rounded[2 * layer], views[2 * layer + 1]
            self._ops.dense_forward(outputs[layer], weight, bias, activation, micro_batch, outputs[layer + 1])
        return outputs[-1]

    def loss(
        self, params: Array, weights: Array, num_rows: int, micro_batch: int, control: Array, tails: Array
    ) -> None:
        """Forward pass and loss of the samples loaded last: fills `tails` (G, TAIL_WORDS), one row a micro-batch."""
        logits, buffers = self.forward(params, weights, num_rows, micro_batch), self._buffers_of(num_rows)
        self._loss(logits, buffers.labels, micro_batch, control, buffers.doutputs[-1], tails)

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
        """`loss`, and each micro-batch's gradient of the loss sum, times LOSS_SCALE, into `grads` (G, layout.size).

        Padding is left as it is.
        """
        self.loss(params, weights, num_rows, micro_batch, control, tails)
        rounded, dviews, buffers = self._views_of(weights), self._views_of(grads), self._buffers_of(num_rows)
        for layer in reversed(range(len(self._activations))):
            x, dout = buffers.outputs[layer], buffers.doutputs[layer]
            self._ops.dense_backward_params(x, dout, micro_batch, dviews[2 * layer], dviews[2 * layer + 1])
            if layer > 0:
                activation, dx = self._activations[layer - 1], buffers.doutputs[layer - 1]
                self._ops.dense_backward_input(dout, rounded[2 * layer], x, activation, micro_batch, dx)

    def _buffers_of(self, num_rows: int) -> "_Buffers":
        if num_rows not in self._buffers:
            outputs = [output[:num_rows] for output in self._outputs]
            doutputs = [doutput[:num_rows] for doutput in self._doutputs]
            self._buffers[num_rows] = _Buffers(outputs, doutputs, self._labels[:num_rows])
        return self._buffers[num_rows]

    def _views_of(self, vector: Array) -> list[Array]:
        """`layout.views`, kept for the few vectors that come back every step; holding the vector keeps its id its own."""
        kept = self._views.get(id(vector))
        if kept is None:
            kept = self._views[id(vector)] = (vector, self.layout.views(vector))
        return kept[1]

    def non_finite_tensor(self, grads: Array) -> str:
        """The first tensor in which `grads` holds an infinity or a NaN; empty where all are finite."""
        host: NDArray[np.float32] = self._ops.to_host(grads)
        for tensor in self.layout.tensors:
            if not np.isfinite(tensor.view(host)).all():
                return tensor.name
        return ""


@dataclass(frozen=True)
class _Buffers:
    """The first B rows of: the inputs and each layer's outputs, the gradients of the latter, and the labels."""

    outputs: list[Array]
    doutputs: list[Array]
    labels: Array
