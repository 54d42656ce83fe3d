"""Networks: a stage of layers, the samples that it reads, and its loss."""

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Rows
from ddpgd.kernels.ops import Ops
from ddpgd.model.layers import Layer, Mode, layer_starts
from ddpgd.model.stage import Stage

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
