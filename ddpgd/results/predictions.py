"""The network of a checkpoint, looked at: its answers to samples, its mistakes, the weights of its first layer."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ddpgd.comm.transport import Alone
from ddpgd.config.schema import from_table
from ddpgd.data import download, mnist, synthetic
from ddpgd.data.mnist import TEST_IMAGES, Dataset
from ddpgd.errors import InputError
from ddpgd.run import build_network, inference, resharding
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.training.evaluate import EVALUATE_ROWS


class Answers(NamedTuple):
    """Class probabilities of N samples of C classes.

    Attributes:
        probabilities: float64 (N, C).
        labels: uint8 (N,).
        images: uint8 (N, rows, cols).
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.uint8]
    images: NDArray[np.uint8]

    @property
    def predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.labels).mean())

    def confusion(self) -> NDArray[np.int64]:
        """Counts samples by their class (rows) and the network's answer (columns): int64 (C, C)."""
        num_classes = self.probabilities.shape[1]
        return np.bincount(
            self.labels.astype(np.int64) * num_classes + self.predicted, minlength=num_classes**2
        ).reshape(num_classes, num_classes)

    def mistakes(self, most: int) -> list[int]:
        """Returns the numbers of the samples with wrong answers, those that the network is surest of first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        surest = np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")
        return [int(number) for number in wrong[surest[:most]]]


def answers(saved: Checkpoint, data: Dataset) -> Answers:
    """Computes a checkpoint's answers to the test samples of `data`, whose images have the checkpoint's shape."""
    images, labels = data.test_images, data.test_labels
    parts = range(0, len(labels), EVALUATE_ROWS)
    with threadpool_limits(1, user_api="blas"), np.errstate(all="ignore"):
        found = [inference.probabilities(saved, images[begin : begin + EVALUATE_ROWS]) for begin in parts]
    return Answers(np.concatenate(found), labels, images.reshape(-1, *data.image_shape))


def find_data(saved: Checkpoint, given: str | None) -> tuple[Dataset | None, str]:
    """Returns the data of a checkpoint, or those `given`, without a download; or None, and why they are not there.

    Raises:
        InputError: Those that are given cannot be loaded, or have images of another shape.
    """
    try:
        place = download.locate(saved.config.get("data") if given is None else given, os.environ)
        if place.is_cache and place.directory and not Path(place.directory, TEST_IMAGES).exists():
            return None, "its data are not on this machine; name them with --data"
        data = mnist.load(place.directory) if place.directory else synthetic.make()
        if list(data.image_shape) != saved.facts["image_shape"]:
            raise InputError(
                f"{data.source}: images of another shape than those of the checkpoint; name other data with --data"
            )
    except InputError as error:
        if given is not None:
            raise
        return None, str(error)
    if given is None and data.sha256 != saved.facts["data_sha256"]:
        return None, f"{data.source}: not the data that it was trained on; name those with --data"
    return data, ""


def first_layer(saved: Checkpoint, most: int) -> list[tuple[int, NDArray[np.float32]]]:
    """Returns the units of the first layer with the largest weights: their numbers, and float32 (rows, cols) each."""
    config, image_shape = from_table(saved.config), saved.facts["image_shape"]
    shape, layout = build_network.input_shape(config, image_shape), build_network.layout(config, image_shape)
    tensors = layout.whole_tensors(resharding.params(Alone(), layout, saved.arrays))
    weights = next(tensor for tensor in tensors.values() if tensor.ndim == 2)
    norms = np.linalg.norm(weights.astype(np.float64), axis=0)
    units = np.argsort(-norms, kind="stable")[:most] if weights.shape[1] > most else np.arange(weights.shape[1])
    return [(int(unit), weights[:, unit].reshape(shape)) for unit in units]
