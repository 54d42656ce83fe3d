"""The losses of the reference, for one micro-batch. Contracts: `ops.Ops`."""

import math

import numpy as np

from ddpgd.kernels.ops import Array
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.kernels.words import Tail


def cross_entropy(scratch: Scratch, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
    num_rows, num_classes = logits.shape
    column = scratch("column", (num_rows, 1), logits.dtype)
    label_logits = scratch("label_logits", (num_rows,), logits.dtype)
    at_labels = _label_positions(scratch, labels, num_classes)
    largest_at = _count_correct(scratch, logits, labels, tail)
    logits.reshape(-1).take(largest_at, out=column[:, 0], mode="clip")
    np.subtract(logits, column, out=dlogits)
    dlogits.reshape(-1).take(at_labels, out=label_logits, mode="clip")
    np.exp(dlogits, out=dlogits)
    np.add.reduce(dlogits, axis=1, keepdims=True, out=column)
    np.divide(dlogits, column, out=dlogits)
    np.log(column, out=column)
    np.subtract(column[:, 0], label_logits, out=label_logits)
    _set_loss(tail, np.add.reduce(label_logits))
    _subtract_at(dlogits, at_labels, label_logits)


def mean_squared_error(scratch: Scratch, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
    num_rows, num_classes = logits.shape
    squares = scratch("squares", logits.shape, logits.dtype)
    label_logits = scratch("label_logits", (num_rows,), logits.dtype)
    _count_correct(scratch, logits, labels, tail)
    np.copyto(dlogits, logits)
    _subtract_at(dlogits, _label_positions(scratch, labels, num_classes), label_logits)
    np.multiply(dlogits, dlogits, out=squares)
    _set_loss(tail, np.add.reduce(squares, axis=None) / num_classes)
    np.multiply(dlogits, 2.0 / num_classes, out=dlogits)


def _set_loss(tail: Array, loss_sum: float) -> None:
    tail[Tail.LOSS_SUM] = loss_sum
    tail[Tail.NON_FINITE] = not math.isfinite(loss_sum)


def _label_positions(scratch: Scratch, labels: Array, num_classes: int) -> Array:
    """Where each row's label lies in the flattened (B, C) array."""
    positions = scratch("positions", labels.shape, np.int64)
    np.add(scratch.keep(_row_starts, labels.shape[0], num_classes), labels, out=positions)
    return positions


def _row_starts(num_rows: int, num_classes: int) -> Array:
    return np.arange(0, num_rows * num_classes, num_classes, dtype=np.int64)


def _count_correct(scratch: Scratch, logits: Array, labels: Array, tail: Array) -> Array:
    """Sets CORRECT and SAMPLES, clears the rest; returns where each row's first largest logit lies, flattened."""
    best = scratch("best", labels.shape, np.int64)
    hits = scratch("hits", labels.shape, np.bool_)
    np.argmax(logits, axis=1, out=best)
    np.equal(best, labels, out=hits)
    tail.fill(0)
    tail[Tail.CORRECT] = np.count_nonzero(hits)
    tail[Tail.SAMPLES] = labels.shape[0]
    np.add(best, scratch.keep(_row_starts, *logits.shape), out=best)
    return best


def _subtract_at(matrix: Array, positions: Array, values: Array) -> None:
    """matrix.flat[positions] -= 1; `values` (len(positions),) is scratch."""
    flat = matrix.reshape(-1)
    flat.take(positions, out=values, mode="clip")
    np.subtract(values, 1, out=values)
    flat.put(positions, values, mode="clip")
