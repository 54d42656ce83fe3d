"""The reference: every op in NumPy. It is the definition that kernels are proved against, and the CPU backend."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.control import Control, Cursor, History, Policy
from ddpgd.kernels import reference_codec
from ddpgd.kernels.ops import Array
from ddpgd.params import BLOCK
from ddpgd.tail import TAIL_WORDS, Tail


class Reference:
    """`Ops` in NumPy. Scratch arrays are made at the first use of a shape and kept, so a loop allocates nothing."""

    name = "numpy"
    device = "CPU"
    steps_per_replay = 1

    def __init__(self, dtype: DTypeLike = np.float32) -> None:
        """`dtype` float64 serves proofs."""
        self.vector_dtype = self.activation_dtype = np.dtype(dtype)
        self._scratches: dict[tuple[str, tuple[int, ...], str], Array] = {}
        self._block_trees: dict[tuple[int, str], list[Array]] = {}
        self._parts: dict[tuple[int, int], list[slice]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.zeros(shape, dtype)

    def from_host(self, values: Array) -> Array:
        return values

    def to_host(self, values: Array) -> Array:
        return values

    def upload(self, values: Array, out: Array) -> None:
        np.copyto(out, values)

    def download(self, values: Array, out: Array) -> None:
        np.copyto(out, values)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def synchronize(self) -> None:
        pass

    def num_joined(self, micro_batch: int, size: int) -> int:  # noqa: ARG002
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
        first = int(cursor[Cursor.FIRST]) + offset
        indices = order[first : first + len(y)]
        rows = self._scratch("rows", x.shape, np.uint8)
        np.take(images, indices, axis=0, out=rows, mode="clip")
        np.multiply(rows, x.dtype.type(1.0 / (255.0 * std)), out=x)
        np.subtract(x, x.dtype.type(mean / std), out=x)
        picked = self._scratch("labels", y.shape, np.uint8)
        np.take(labels, indices, out=picked, mode="clip")
        y[...] = picked

    def dense_forward(
        self, x: Array, weight: Array, bias: Array, activation: str, micro_batch: int, out: Array
    ) -> None:
        for part in self._micro_batches(len(x), micro_batch):
            np.matmul(x[part], weight, out=out[part])
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

    def dense_backward_params(self, x: Array, dout: Array, micro_batch: int, dweight: Array, dbias: Array) -> None:
        for number, part in enumerate(self._micro_batches(len(x), micro_batch)):
            np.matmul(x[part].T, dout[part], out=dweight[number])
            np.add.reduce(dout[part], axis=0, out=dbias[number])

    def dense_backward_input(
        self, dout: Array, weight: Array, x: Array, activation: str, micro_batch: int, dx: Array
    ) -> None:
        for part in self._micro_batches(len(x), micro_batch):
            np.matmul(dout[part], weight.T, out=dx[part])
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

    def cross_entropy(
        self, logits: Array, labels: Array, micro_batch: int, control: Array, dlogits: Array, tails: Array
    ) -> None:
        for number, part in enumerate(self._micro_batches(len(logits), micro_batch)):
            self._cross_entropy(logits[part], labels[part], dlogits[part], tails[number])
        self._scale_loss(control, dlogits)

    def mean_squared_error(
        self, logits: Array, labels: Array, micro_batch: int, control: Array, dlogits: Array, tails: Array
    ) -> None:
        for number, part in enumerate(self._micro_batches(len(logits), micro_batch)):
            self._mean_squared_error(logits[part], labels[part], dlogits[part], tails[number])
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
        for number, row in enumerate(rows):
            out[number] = self._squared_norm(row)

    def decide(
        self, grads: Array, tail: Array, lrs: Array, cursor: Array, control: Array, history: Array, policy: Policy
    ) -> None:
        words, state, place = tail.tolist(), control.tolist(), cursor.tolist()
        loss_scale = state[Control.LOSS_SCALE]
        scale = 1.0 / (words[Tail.SAMPLES] * loss_scale)
        norm = math.sqrt(self._squared_norm(grads)) * scale
        finite_loss = words[Tail.NON_FINITE] == 0
        applied = finite_loss and math.isfinite(norm) and not state[Control.HALTED]
        may_shrink = bool(policy.growth_interval) and loss_scale > 1 and not state[Control.HALTED]
        overflowed = finite_loss and not math.isfinite(norm) and may_shrink
        if applied and 0.0 < policy.clip_norm < norm:
            scale *= policy.clip_norm / norm
        state[Control.LR] = float(lrs[place[Cursor.STEP]])
        state[Control.SCALE] = scale
        state[Control.APPLY] = applied
        state[Control.UPDATE] += applied
        state[Control.HALTED] = state[Control.HALTED] or not (applied or overflowed)
        _adapt_loss_scale(state, applied, overflowed, policy)
        control[:] = state
        row = history[place[Cursor.RECORD] % len(history)]
        row[:TAIL_WORDS] = tail
        row[History.LR : History.LOSS_SCALE + 1] = state[Control.LR], norm, applied, overflowed, loss_scale
        cursor[: Cursor.RECORD + 1] = (
            place[Cursor.FIRST] + policy.global_batch,
            place[Cursor.STEP] + 1,
            place[Cursor.RECORD] + 1,
        )

    def sgd(self, params: Array, grads: Array, control: Array, weight_decay: float, weights: Array) -> None:  # noqa: ARG002
        lr, scale, apply = control[: Control.APPLY + 1].tolist()
        if not apply:
            return
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
        control: Array,
        weight_decay: float,
        momentum: float,
        weights: Array,  # noqa: ARG002
    ) -> None:
        lr, scale, apply = control[: Control.APPLY + 1].tolist()
        if not apply:
            return
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
        control: Array,
        weight_decay: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        weights: Array,  # noqa: ARG002
    ) -> None:
        lr, scale, apply, update = control[: Control.UPDATE + 1].tolist()
        if not apply:
            return
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

    def random_words(self, key: Array, out: Array) -> None:
        reference_codec.random_words(key, out)

    def encode(
        self, values: Array, residual: Array | None, key: Array, first: int, coded: Array, exponents: Array
    ) -> None:
        reference_codec.encode(values, residual, key, first, coded, exponents)

    def decode(self, coded: Array, exponents: Array, values: Array) -> None:
        reference_codec.decode(coded, exponents, values)

    def _gradient(self, params: Array, grads: Array, scale: float, weight_decay: float) -> Array:
        """scale grads + weight_decay params, in scratch: writing into grads, which peers have just read, costs more."""
        gradient = self._scratch("gradient", params.shape, params.dtype)
        np.multiply(grads, scale, out=gradient)
        if weight_decay:
            work = self._scratch("work", params.shape, params.dtype)
            np.multiply(params, weight_decay, out=work)
            np.add(gradient, work, out=gradient)
        return gradient

    def _squared_norm(self, x: Array) -> float:
        blocks = x.reshape(-1, BLOCK)
        levels = self._block_tree(blocks.shape[0], x.dtype)
        np.vecdot(blocks, blocks, out=levels[0][: blocks.shape[0]])
        for nodes, parents in pairwise(levels):
            np.add(nodes[::2], nodes[1::2], out=parents)
        return float(levels[-1][0])

    def _cross_entropy(self, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
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
        self._set_loss(tail, np.add.reduce(label_logits))
        self._subtract_at(dlogits, at_labels, label_logits)

    def _mean_squared_error(self, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
        num_rows, num_classes = logits.shape
        squares = self._scratch("squares", logits.shape, logits.dtype)
        label_logits = self._scratch("label_logits", (num_rows,), logits.dtype)
        self._count_correct(logits, labels, tail)
        np.copyto(dlogits, logits)
        self._subtract_at(dlogits, self._label_positions(labels, num_classes), label_logits)
        np.multiply(dlogits, dlogits, out=squares)
        self._set_loss(tail, np.add.reduce(squares, axis=None) / num_classes)
        np.multiply(dlogits, 2.0 / num_classes, out=dlogits)

    def _set_loss(self, tail: Array, loss_sum: float) -> None:
        tail[Tail.LOSS_SUM] = loss_sum
        tail[Tail.NON_FINITE] = not math.isfinite(loss_sum)

    def _scale_loss(self, control: Array, dlogits: Array) -> None:
        loss_scale = float(control[Control.LOSS_SCALE])
        if loss_scale != 1.0:
            np.multiply(dlogits, loss_scale, out=dlogits)

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
        """Sets CORRECT and SAMPLES, clears the rest; returns where each row's first largest logit lies, flattened."""
        best = self._scratch("best", labels.shape, np.int64)
        hits = self._scratch("hits", labels.shape, np.bool_)
        np.argmax(logits, axis=1, out=best)
        np.equal(best, labels, out=hits)
        tail.fill(0)
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

    def _micro_batches(self, num_rows: int, micro_batch: int) -> list[slice]:
        """The rows of each micro-batch."""
        parts = self._parts.get((num_rows, micro_batch))
        if parts is None:
            starts = range(0, num_rows, micro_batch)
            parts = [slice(start, min(start + micro_batch, num_rows)) for start in starts]
            self._parts[num_rows, micro_batch] = parts
        return parts

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


def _adapt_loss_scale(state: list[float], applied: bool, overflowed: bool, policy: Policy) -> None:
    if overflowed:
        state[Control.LOSS_SCALE] /= 2
        state[Control.GOOD_STEPS] = 0
    elif applied and policy.growth_interval:
        state[Control.GOOD_STEPS] += 1
        if state[Control.GOOD_STEPS] >= policy.growth_interval:
            state[Control.LOSS_SCALE] = min(2 * state[Control.LOSS_SCALE], policy.largest_loss_scale)
            state[Control.GOOD_STEPS] = 0
