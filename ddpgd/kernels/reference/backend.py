"""The reference: every op in NumPy. It is the definition that kernels are proved against, and the CPU backend."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Dropout, Rows
from ddpgd.kernels.ops import side_by_side
from ddpgd.kernels.reference import augment, decision, losses
from ddpgd.kernels.reference.compress import ReferenceWire
from ddpgd.kernels.reference.host import Host
from ddpgd.kernels.reference.masks import Masks
from ddpgd.kernels.reference.norms import limit_norms
from ddpgd.kernels.reference.orthogonal import update_matrix
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.kernels.reference.updates import Updates
from ddpgd.kernels.words import BLOCK, Control, Cursor, Policy


class Reference(Host):
    """`Ops` in NumPy."""

    name = "numpy"
    products = "NumPy"

    def __init__(self, dtype: DTypeLike = np.float32) -> None:
        """`dtype` float64 serves proofs."""
        self.vector_dtype = self.activation_dtype = np.dtype(dtype)
        self.wire = ReferenceWire()
        self._scratch = Scratch()
        self._nothing = nullcontext()
        self._updates = Updates()
        self._masks = Masks()

    def another(self) -> Self:
        return type(self)(self.vector_dtype)

    def fused(self) -> AbstractContextManager[None]:
        return self._nothing

    def batched_micro_batches(self, micro_batch: int, size: int) -> int:  # noqa: ARG002
        return 1

    def round_weights(self, params: Array) -> Array:
        return params

    def gather_normalise(
        self,
        images: Array,
        labels: Array,
        order: Array,
        cursor: Array,
        offset: int,
        mean: float,
        std: float,
        x: Array,
        y: Array,
    ) -> None:
        samples = self._pick(labels, order, cursor, offset, y)
        rows = self._scratch("rows", x.shape, np.uint8)
        images.take(samples, axis=0, out=rows, mode="clip")
        _normalise(rows, mean, std, x)

    def gather_augment(
        self,
        images: Array,
        labels: Array,
        order: Array,
        cursor: Array,
        offset: int,
        mean: float,
        std: float,
        augmentation: Augmentation,
        x: Array,
        y: Array,
    ) -> None:
        samples, epoch = self._pick(labels, order, cursor, offset, y), int(cursor[Cursor.EPOCH])
        _normalise(augment.augment(self._scratch, images, samples, epoch, augmentation), mean, std, x)

    def dropout(self, x: Array, rows: Rows, dropout: Dropout, first: int, out: Array) -> None:
        start, (num_rows, width) = int(rows.cursor[Cursor.FIRST]) + rows.offset, x.shape
        samples, epoch = rows.order[start : start + num_rows], int(rows.cursor[Cursor.EPOCH])
        np.multiply(x, self._masks(dropout, epoch, samples, first, width, x.dtype), out=out)

    def dense_forward(
        self,
        x: Array,
        weights: Sequence[Array],
        biases: Sequence[Array],
        activation: str,
        micro_batch: int,
        out: Array,
    ) -> None:
        for weight, columns in zip(weights, side_by_side(weights, axis=1), strict=True):
            for part in _micro_batches(len(x), micro_batch):
                np.matmul(x[part], weight, out=out[part, columns])
        width = out.shape[1:]
        bias = np.concatenate(biases, out=self._scratch("bias", width, out.dtype)) if len(biases) > 1 else biases[0]
        np.add(out, bias, out=out)
        if activation == "relu":
            np.maximum(out, self._scratch.keep(np.zeros, width, out.dtype), out=out)
        elif activation == "tanh":
            np.tanh(out, out=out)
        elif activation == "sigmoid":
            np.multiply(out, 0.5, out=out)
            np.tanh(out, out=out)
            np.multiply(out, 0.5, out=out)
            np.add(out, 0.5, out=out)

    def dense_backward_params(self, x: Array, dout: Array, micro_batch: int, dweight: Array, dbias: Array) -> None:
        for number, part in enumerate(_micro_batches(len(x), micro_batch)):
            np.matmul(x[part].T, dout[part], out=dweight[number])
            np.add.reduce(dout[part], axis=0, out=dbias[number])

    def dense_backward_input(
        self, dout: Array, weights: Sequence[Array], x: Array, activation: str, micro_batch: int, dx: Array
    ) -> None:
        for weight, columns in zip(weights, side_by_side(weights, axis=0), strict=True):
            for part in _micro_batches(len(x), micro_batch):
                np.matmul(dout[part], weight.T, out=dx[part, columns])
        if activation != "identity":
            self.activation_backward(dx, x, activation, dx)

    def activation_backward(self, dout: Array, x: Array, activation: str, dx: Array) -> None:
        slope = self._scratch("slope", x.shape, bool if activation == "relu" else x.dtype)
        if activation == "relu":
            np.greater(x, 0, out=slope)
        elif activation == "tanh":
            np.multiply(x, x, out=slope)
            np.subtract(1.0, slope, out=slope)
        elif activation == "sigmoid":
            np.subtract(1.0, x, out=slope)
            np.multiply(slope, x, out=slope)
        np.multiply(dout, slope, out=dx)

    def copy(self, values: Array, out: Array) -> None:
        np.copyto(out, values)

    def cross_entropy(
        self,
        logits: Array,
        labels: Array,
        micro_batch: int,
        control: Array,
        dlogits: Array,
        tails: Array,
        smoothing: float = 0.0,
    ) -> None:
        for number, part in enumerate(_micro_batches(len(logits), micro_batch)):
            losses.cross_entropy(self._scratch, logits[part], labels[part], dlogits[part], tails[number], smoothing)
        self._scale_loss(control, dlogits)

    def mean_squared_error(
        self, logits: Array, labels: Array, micro_batch: int, control: Array, dlogits: Array, tails: Array
    ) -> None:
        for number, part in enumerate(_micro_batches(len(logits), micro_batch)):
            losses.mean_squared_error(self._scratch, logits[part], labels[part], dlogits[part], tails[number])
        self._scale_loss(control, dlogits)

    def add(self, left: Array, right: Array, out: Array) -> None:
        np.add(left, right, out=out)

    def tree_sum(self, rows: Array, out: Array) -> None:
        distance = 1
        while distance < len(rows):
            for left in range(0, len(rows) - distance, 2 * distance):
                np.add(rows[left], rows[left + distance], out=rows[left])
            distance *= 2
        np.copyto(out, rows[0])

    def squared_norms(self, rows: Array, out: Array) -> None:
        if rows.shape[1] == BLOCK:
            np.vecdot(rows, rows, out=out)
            return
        for number, row in enumerate(rows):
            out[number] = decision.squared_norm(self._scratch, row)

    def decide(
        self, grads: Array, tail: Array, rates: Array, cursor: Array, control: Array, history: Array, policy: Policy
    ) -> None:
        squared = decision.squared_norm(self._scratch, grads)
        decision.decide(squared, tail, rates, cursor, control, history, policy)

    def decide_by_norms(
        self,
        block_norms: Array,
        tail: Array,
        rates: Array,
        cursor: Array,
        control: Array,
        history: Array,
        policy: Policy,
    ) -> None:
        squared = decision.squared_norm_of_blocks(self._scratch, block_norms)
        decision.decide(squared, tail, rates, cursor, control, history, policy)

    def update(
        self,
        rule: str,
        params: Array,
        grads: Array,
        state: Sequence[Array],
        control: Array,
        weight_decay: float,
        hyper: Sequence[float],
        weights: Array,  # noqa: ARG002
    ) -> None:
        self._updates(rule, params, grads, state, control, weight_decay, hyper)

    def update_matrix(
        self,
        params: Array,
        grads: Array,
        exp_avg: Array,
        control: Array,
        weight_decay: float,
        beta: float,
        weights: Array,  # noqa: ARG002
    ) -> None:
        update_matrix(self._scratch, params, grads, exp_avg, control, weight_decay, beta)

    def _pick(self, labels: Array, order: Array, cursor: Array, offset: int, y: Array) -> Array:
        """The numbers of as many samples as y has; puts their labels into y."""
        first = int(cursor[Cursor.FIRST]) + offset
        samples = order[first : first + len(y)]
        picked = self._scratch("labels", y.shape, np.uint8)
        labels.take(samples, out=picked, mode="clip")
        y[...] = picked
        return samples

    def limit_norms(self, weight: Array, weights: Array, control: Array, limit: float) -> None:  # noqa: ARG002
        if control[Control.APPLY]:
            limit_norms(self._scratch, weight, limit)

    def _scale_loss(self, control: Array, dlogits: Array) -> None:
        loss_scale = float(control[Control.LOSS_SCALE])
        if loss_scale != 1.0:
            np.multiply(dlogits, loss_scale, out=dlogits)


def _normalise(pixels: Array, mean: float, std: float, x: Array) -> None:
    np.copyto(x, pixels)
    np.multiply(x, x.dtype.type(1.0 / (255.0 * std)), out=x)
    np.subtract(x, x.dtype.type(mean / std), out=x)


@cache
def _micro_batches(num_rows: int, micro_batch: int) -> list[slice]:
    """The rows of each micro-batch."""
    return [slice(start, min(start + micro_batch, num_rows)) for start in range(0, num_rows, micro_batch)]
