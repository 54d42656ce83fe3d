"""A data set of labelled digits, and how the four IDX files of a folder become one."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpgd.data import idx
from ddpgd.errors import InputError

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, for training and for testing; the arrays are read-only.

    train_images, test_images: uint8 (num_samples, rows * cols), 0 is background; train_labels, test_labels: uint8
    (num_samples,), 0 to 9; image_shape: (rows, cols); source: where they came from, to be printed.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    image_shape: tuple[int, int]
    source: str

    @cached_property
    def sha256(self) -> str:
        """Hex digest over the image shape and the four arrays with their shapes: equal data, equal digest."""
        digest = hashlib.sha256(repr(self.image_shape).encode())
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load(directory: Path) -> Dataset:
    """The data set of a folder that holds the four MNIST files, plain or gzipped, of any count and any image size.

    Raises InputError, in one line, for a file that is missing, unreadable or damaged, or that does not fit the others.
    """
    train_images, train_labels = _part(directory, TRAIN_IMAGES, TRAIN_LABELS)
    test_images, test_labels = _part(directory, TEST_IMAGES, TEST_LABELS)
    rows, cols = train_images.shape[1:]
    test_rows, test_cols = test_images.shape[1:]
    if (test_rows, test_cols) != (rows, cols):
        got = f"images of {test_rows}x{test_cols}"
        raise idx.broken(_find(directory, TEST_IMAGES), got, f"{rows}x{cols} as in {TRAIN_IMAGES}")
    return Dataset(
        train_images=train_images.reshape(len(train_images), rows * cols),
        train_labels=train_labels,
        test_images=test_images.reshape(len(test_images), rows * cols),
        test_labels=test_labels,
        image_shape=(rows, cols),
        source=str(directory),
    )


def _part(directory: Path, images_name: str, labels_name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = idx.read_images(_find(directory, images_name))
    labels_path = _find(directory, labels_name)
    labels = idx.read_labels(labels_path)
    if len(labels) != len(images):
        raise idx.broken(labels_path, f"{len(labels)} labels", f"{len(images)}, one for each image of {images_name}")
    return images, labels


def _find(directory: Path, name: str) -> Path:
    """The file of that name, plain before gzipped."""
    try:
        if not directory.is_dir():
            what = "is not a folder" if directory.exists() else "there is no such folder"
            raise InputError(f"{directory}: {what}; wanted one with the four MNIST files; give it with --data DIR")
        for path in (directory / name, directory / f"{name}.gz"):
            if path.is_file():
                return path
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{directory}: cannot be read ({reason}); give another folder with --data DIR") from None
    raise InputError(f"{directory}: no {name} and no {name}.gz; put it there, or give another folder with --data DIR")
