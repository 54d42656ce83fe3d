"""The losses of the reference, for one micro-batch. Contracts: `ops.Ops`."""

import math

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.ops import Array
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.kernels.words import Tail


class _Work:
    """Arrays for logits of one shape (B, C), made once: each NumPy call saved is a microsecond of a step."""

    def __init__(self, num_rows: int, num_classes: int, dtype: DTypeLike) -> None:
        self.row_starts = np.arange(0, num_rows * num_classes, num_classes, dtype=np.int64)
        self.at_labels = np.empty(num_rows, np.int64)
        self.largest_at = np.empty(num_rows, np.int64)
        self.hits = np.empty(num_rows, np.bool_)
        self.column = np.empty((num_rows, 1), dtype)
        self.flat_column = self.column[:, 0]
        self.label_values = np.empty(num_rows, dtype)
        self.squares = np.empty((num_rows, num_classes), dtype)


def cross_entropy(scratch: Scratch, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
    work = scratch.keep(_Work, *logits.shape, logits.dtype)
    column, flat = work.column, dlogits.reshape(-1)
    _count_correct(work, logits, labels, tail)
    logits.reshape(-1).take(work.largest_at, out=work.flat_column, mode="clip")
    np.subtract(logits, column, out=dlogits)
    flat.take(work.at_labels, out=work.label_values, mode="clip")
    np.exp(dlogits, out=dlogits)
    np.add.reduce(dlogits, axis=1, keepdims=True, out=column)
    np.divide(dlogits, column, out=dlogits)
    np.log(column, out=column)
    np.subtract(work.flat_column, work.label_values, out=work.label_values)
    _set_loss(tail, np.add.reduce(work.label_values))
    _subtract_one_at_labels(work, flat)


def mean_squared_error(scratch: Scratch, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
    work, num_classes = scratch.keep(_Work, *logits.shape, logits.dtype), logits.shape[1]
    _count_correct(work, logits, labels, tail)
    np.copyto(dlogits, logits)
    _subtract_one_at_labels(work, dlogits.reshape(-1))
    np.multiply(dlogits, dlogits, out=work.squares)
    _set_loss(tail, np.add.reduce(work.squares, axis=None) / num_classes)
    np.multiply(dlogits, 2.0 / num_classes, out=dlogits)


def _set_loss(tail: Array, loss_sum: float) -> None:
    tail[Tail.LOSS_SUM] = loss_sum
    tail[Tail.NON_FINITE] = not math.isfinite(loss_sum)


def _count_correct(work: _Work, logits: Array, labels: Array, tail: Array) -> None:
    """Sets CORRECT and SAMPLES and clears the rest; `work` gets the flat positions of the first largest logits and labels."""
    np.argmax(logits, axis=1, out=work.largest_at)
    np.equal(work.largest_at, labels, out=work.hits)
    tail.fill(0)
    tail[Tail.CORRECT] = np.count_nonzero(work.hits)
    tail[Tail.SAMPLES] = labels.shape[0]
    np.add(work.row_starts, labels, out=work.at_labels)
    np.add(work.row_starts, work.largest_at, out=work.largest_at)


def _subtract_one_at_labels(work: _Work, flat: Array) -> None:
    flat.take(work.at_labels, out=work.label_values, mode="clip")
    np.subtract(work.label_values, 1, out=work.label_values)
    flat.put(work.at_labels, work.label_values, mode="clip")
