"""The losses of the reference, for one micro-batch. Contracts: `ops.Ops`.

Arguments by place and words written at once: for so few values, a step pays for the calls.
"""

import math

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.kernels.words import TAIL_WORDS, Tail


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


def cross_entropy(
    scratch: Scratch, logits: Array, labels: Array, dlogits: Array, tail: Array, smoothing: float
) -> None:
    work = scratch.keep(_Work, *logits.shape, logits.dtype)
    column, flat = work.column, dlogits.reshape(-1)
    num_correct = _num_correct(work, logits, labels)
    logits.reshape(-1).take(work.largest_at, None, work.flat_column, "clip")
    np.subtract(logits, column, dlogits)
    flat.take(work.at_labels, None, work.label_values, "clip")
    each = smoothing / logits.shape[1]
    if smoothing:
        # A target's sum is 1, so the loss is log sum exp(shifted) - sum target shifted.
        np.multiply(work.label_values, 1.0 - smoothing, work.label_values)
        np.add.reduce(dlogits, 1, None, column, keepdims=True)
        np.multiply(column, each, column)
        np.add(work.label_values, work.flat_column, work.label_values)
    np.exp(dlogits, dlogits)
    np.add.reduce(dlogits, 1, None, column, keepdims=True)
    np.divide(dlogits, column, dlogits)
    np.log(column, column)
    np.subtract(work.flat_column, work.label_values, work.label_values)
    _set_tail(tail, np.add.reduce(work.label_values), len(labels), num_correct)
    if smoothing:
        np.subtract(dlogits, each, dlogits)
    _subtract_at_labels(work, flat, 1.0 - smoothing)


def mean_squared_error(scratch: Scratch, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
    work, num_classes = scratch.keep(_Work, *logits.shape, logits.dtype), logits.shape[1]
    num_correct = _num_correct(work, logits, labels)
    np.copyto(dlogits, logits)
    _subtract_at_labels(work, dlogits.reshape(-1), 1.0)
    np.multiply(dlogits, dlogits, work.squares)
    _set_tail(tail, np.add.reduce(work.squares, None) / num_classes, len(labels), num_correct)
    np.multiply(dlogits, 2.0 / num_classes, dlogits)


def _set_tail(tail: Array, loss_sum: float, num_samples: int, num_correct: int) -> None:
    words = [0.0] * TAIL_WORDS
    words[Tail.LOSS_SUM] = loss_sum
    words[Tail.SAMPLES] = num_samples
    words[Tail.CORRECT] = num_correct
    words[Tail.NON_FINITE] = not math.isfinite(loss_sum)
    tail[:] = words


def _num_correct(work: _Work, logits: Array, labels: Array) -> int:
    """Returns how many first largest logits are at the labels; `work` gets the flat positions of both."""
    logits.argmax(1, work.largest_at)
    np.equal(work.largest_at, labels, work.hits)
    np.add(work.row_starts, labels, work.at_labels)
    np.add(work.row_starts, work.largest_at, work.largest_at)
    return int(np.count_nonzero(work.hits))


def _subtract_at_labels(work: _Work, flat: Array, amount: float) -> None:
    flat.take(work.at_labels, None, work.label_values, "clip")
    np.subtract(work.label_values, amount, work.label_values)
    flat.put(work.at_labels, work.label_values, "clip")
