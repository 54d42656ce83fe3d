"""The reference: every op in NumPy. It is the definition that kernels are proved against, and the CPU backend."""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.ops import Array
from ddpgd.params import BLOCK
from ddpgd.tail import Tail


class Reference:
    """`Ops` in NumPy. Scratch arrays are made at the first use of a shape and kept, so a loop allocates nothing."""

    name = "numpy"

    def __init__(self) -> None:
        self._scratches: dict[tuple[str, tuple[int, ...], str], Array] = {}
        self._block_trees: dict[tuple[int, str], list[Array]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.zeros(shape, dtype)

    def from_host(self, values: Array) -> Array:
        return values

    def to_host(self, values: Array) -> Array:
        return values

    def gather_normalise(
        self, images: Array, labels: Array, indices: Array, mean: float, std: float, x: Array, y: Array
    ) -> None:
        rows = self._scratch("rows", x.shape, np.uint8)
        np.take(images, indices, axis=0, out=rows, mode="clip")
        np.multiply(rows, x.dtype.type(1.0 / (255.0 * std)), out=x)
        np.subtract(x, x.dtype.type(mean / std), out=x)
        picked = self._scratch("labels", y.shape, np.uint8)
        np.take(labels, indices, out=picked, mode="clip")
        y[...] = picked

    def dense_forward(self, x: Array, weight: Array, bias: Array, activation: str, out: Array) -> None:
        np.matmul(x, weight, out=out)
        np.add(out, bias, out=out)
        if activation == "relu":
            np.maximum(out, self._zeros(bias.shape, out.dtype), out=out)
        elif activation == "tanh":
            np.tanh(out, out=out)
        elif activation == "sigmoid":
            np.multiply(out, 0.5, out=out)
            np.tanh(out, out=out)
            np.multiply(out, 0.5, out=out)
            np.add(out, 0.5, out=out)

    def dense_backward_params(self, x: Array, dout: Array, dweight: Array, dbias: Array) -> None:
        np.matmul(x.T, dout, out=dweight)
        np.add.reduce(dout, axis=0, out=dbias)

    def dense_backward_input(self, dout: Array, weight: Array, x: Array, activation: str, dx: Array) -> None:
        np.matmul(dout, weight.T, out=dx)
        slope = self._scratch("slope", x.shape, bool if activation == "relu" else x.dtype)
        if activation == "relu":
            np.greater(x, 0, out=slope)
        elif activation == "tanh":
            np.multiply(x, x, out=slope)
            np.subtract(1.0, slope, out=slope)
        elif activation == "sigmoid":
            np.subtract(1.0, x, out=slope)
            np.multiply(slope, x, out=slope)
        else:
            slope.fill(1)
        np.multiply(dx, slope, out=dx)

    def cross_entropy(self, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
        num_rows, num_classes = logits.shape
        column = self._scratch("column", (num_rows, 1), logits.dtype)
        label_logits = self._scratch("label_logits", (num_rows,), logits.dtype)
        at_labels = self._label_positions(labels, num_classes)
        largest_at = self._count_correct(logits, labels, tail)
        np.take(logits.reshape(-1), largest_at, out=column[:, 0], mode="clip")
        np.subtract(logits, column, out=dlogits)
        np.take(dlogits.reshape(-1), at_labels, out=label_logits, mode="clip")
        np.exp(dlogits, out=dlogits)
        np.add.reduce(dlogits, axis=1, keepdims=True, out=column)
        np.divide(dlogits, column, out=dlogits)
        np.log(column, out=column)
        np.subtract(column[:, 0], label_logits, out=label_logits)
        tail[Tail.LOSS_SUM] = np.add.reduce(label_logits)
        self._subtract_at(dlogits, at_labels, label_logits)

    def mean_squared_error(self, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
        num_rows, num_classes = logits.shape
        squares = self._scratch("squares", logits.shape, logits.dtype)
        label_logits = self._scratch("label_logits", (num_rows,), logits.dtype)
        self._count_correct(logits, labels, tail)
        np.copyto(dlogits, logits)
        self._subtract_at(dlogits, self._label_positions(labels, num_classes), label_logits)
        np.multiply(dlogits, dlogits, out=squares)
        tail[Tail.LOSS_SUM] = np.add.reduce(squares, axis=None) / num_classes
        np.multiply(dlogits, 2.0 / num_classes, out=dlogits)

    def add(self, left: Array, right: Array, out: Array) -> None:
        np.add(left, right, out=out)

    def squared_norm(self, x: Array) -> float:
        blocks = x.reshape(-1, BLOCK)
        levels = self._block_tree(blocks.shape[0], x.dtype)
        np.vecdot(blocks, blocks, out=levels[0][: blocks.shape[0]])
        for nodes, parents in pairwise(levels):
            np.add(nodes[::2], nodes[1::2], out=parents)
        return float(levels[-1][0])

    def sgd(self, params: Array, grads: Array, lr: float, scale: float, weight_decay: float) -> None:
        if weight_decay:
            change = self._gradient(params, grads, scale, weight_decay)
            np.multiply(change, lr, out=change)
        else:
            change = self._scratch("gradient", params.shape, params.dtype)
            np.multiply(grads, lr * scale, out=change)
        np.subtract(params, change, out=params)

    def momentum(
        self,
        params: Array,
        grads: Array,
        velocity: Array,
        lr: float,
        scale: float,
        weight_decay: float,
        momentum: float,
    ) -> None:
        change = self._gradient(params, grads, scale, weight_decay)
        np.multiply(velocity, momentum, out=velocity)
        np.add(velocity, change, out=velocity)
        np.multiply(velocity, lr, out=change)
        np.subtract(params, change, out=params)

    def adam(
        self,
        params: Array,
        grads: Array,
        first: Array,
        second: Array,
        lr: float,
        scale: float,
        weight_decay: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        update: int,
    ) -> None:
        gradient = self._gradient(params, grads, scale, weight_decay)
        work = self._scratch("work", params.shape, params.dtype)
        np.multiply(gradient, 1.0 - beta1, out=work)
        np.multiply(first, beta1, out=first)
        np.add(first, work, out=first)
        np.multiply(gradient, gradient, out=gradient)
        np.multiply(gradient, 1.0 - beta2, out=gradient)
        np.multiply(second, beta2, out=second)
        np.add(second, gradient, out=second)
        np.sqrt(second, out=work)
        np.multiply(work, 1.0 / math.sqrt(1.0 - beta2**update), out=work)
        np.add(work, epsilon, out=work)
        np.divide(first, work, out=work)
        np.multiply(work, lr / (1.0 - beta1**update), out=work)
        np.subtract(params, work, out=params)

    def _gradient(self, params: Array, grads: Array, scale: float, weight_decay: float) -> Array:
        """scale grads + weight_decay params, in scratch: writing into grads, which peers have just read, costs more."""
        gradient = self._scratch("gradient", params.shape, params.dtype)
        np.multiply(grads, scale, out=gradient)
        if weight_decay:
            work = self._scratch("work", params.shape, params.dtype)
            np.multiply(params, weight_decay, out=work)
            np.add(gradient, work, out=gradient)
        return gradient

    def _label_positions(self, labels: Array, num_classes: int) -> Array:
        """Where each row's label lies in the flattened (B, C) array."""
        positions = self._scratch("positions", labels.shape, np.int64)
        np.add(self._row_starts(labels.shape[0], num_classes), labels, out=positions)
        return positions

    def _row_starts(self, num_rows: int, num_classes: int) -> Array:
        key = ("row_starts", (num_rows, num_classes), "int64")
        if key not in self._scratches:
            self._scratches[key] = np.arange(0, num_rows * num_classes, num_classes, dtype=np.int64)
        return self._scratches[key]

    def _count_correct(self, logits: Array, labels: Array, tail: Array) -> Array:
        """Sets CORRECT and SAMPLES; returns where each row's first largest logit lies in the flattened (B, C) array."""
        best = self._scratch("best", labels.shape, np.int64)
        hits = self._scratch("hits", labels.shape, np.bool_)
        np.argmax(logits, axis=1, out=best)
        np.equal(best, labels, out=hits)
        tail[Tail.CORRECT] = np.count_nonzero(hits)
        tail[Tail.SAMPLES] = labels.shape[0]
        np.add(best, self._row_starts(*logits.shape), out=best)
        return best

    def _block_tree(self, num_blocks: int, dtype: DTypeLike) -> list[Array]:
        """The nodes of a complete binary tree over blocks, level by level; zeros pad the first to a power of two."""
        key = (num_blocks, np.dtype(dtype).char)
        if key not in self._block_trees:
            depth = (num_blocks - 1).bit_length()
            self._block_trees[key] = [np.zeros(1 << level, dtype) for level in range(depth, -1, -1)]
        return self._block_trees[key]

    def _subtract_at(self, matrix: Array, positions: Array, values: Array) -> None:
        """matrix.flat[positions] -= 1; `values` (len(positions),) is scratch."""
        flat = matrix.reshape(-1)
        np.take(flat, positions, out=values, mode="clip")
        np.subtract(values, 1, out=values)
        np.put(flat, positions, values, mode="clip")

    def _zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Zeros, never written to: NumPy takes a maximum with an array in half the time of one with a scalar."""
        key = ("zeros", shape, np.dtype(dtype).char)
        if key not in self._scratches:
            self._scratches[key] = np.zeros(shape, dtype)
        return self._scratches[key]

    def _scratch(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        key = (purpose, shape, np.dtype(dtype).char)
        array = self._scratches.get(key)
        if array is None:
            array = self._scratches[key] = np.empty(shape, dtype)
        return array
