"""Validation samples: a fixed part of the training samples that is held out of training."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.kernels.philox import Purpose, words


def hold_out(data: Dataset, count: int) -> Dataset:
    """Returns `data` with `count` of its training samples as validation samples; all others stay, in their order.

    The choice depends on the labels and the count alone: runs with other seeds compare on the same samples. The classes
    have the shares that they have among all training samples, to within one sample.

    Args:
        data: Without validation samples.
        count: Number of validation samples; 0: none.

    Raises:
        InputError: There are no more training samples than that.

    >>> from ddpgd.data import synthetic
    >>> divided = hold_out(synthetic.make(num_train=1000, num_test=10), 100)
    >>> len(divided.train_labels), np.bincount(divided.validation_labels).tolist()
    (900, [10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """
    if count == 0:
        return data
    num_samples = len(data.train_labels)
    if count >= num_samples:
        raise InputError(
            f"--validation {count}: there are {num_samples:,} training samples in all; type {num_samples // 10} or less"
        )
    chosen = _stratified(data.train_labels, count)
    return replace(
        data,
        train_images=_part(data.train_images, ~chosen),
        train_labels=_part(data.train_labels, ~chosen),
        validation_images=_part(data.train_images, chosen),
        validation_labels=_part(data.train_labels, chosen),
        undivided_sha256=data.sha256,
    )


def _part(array: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    part = array[chosen]
    part.setflags(write=False)
    return part


def _stratified(labels: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """Returns which samples are chosen: of each class its share, rounded by the largest remainders; bool (n,)."""
    sizes = np.bincount(labels)
    whole, remainders = np.divmod(sizes * count, len(labels))
    whole[np.argsort(-remainders, kind="stable")[: count - whole.sum()]] += 1
    keys = words(0, Purpose.VALIDATION, 0, len(labels))
    chosen = np.zeros(len(labels), np.bool_)
    for label, size in enumerate(whole):
        own = np.flatnonzero(labels == label)
        chosen[own[np.argsort(keys[own], kind="stable")[:size]]] = True
    return chosen
