"""Data sets of labelled images, loaded from the four IDX files of a folder."""

import hashlib
import itertools
from dataclasses import dataclass, field
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
CLASS_NAMES = "classes.txt"
_FOLDERS = ("", "raw", "MNIST/raw")
"""Subfolders in which the files may lie: torchvision writes its own to MNIST/raw."""
_MAX_NAMES_BYTES = 4096
_MAX_NAME = 40


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, for training and for testing; the arrays are read-only, in memory that nothing else changes.

    Attributes:
        train_images, test_images: uint8 (num_samples, rows * cols), 0 is background.
        train_labels, test_labels: uint8 (num_samples,), 0 to 9.
        image_shape: (rows, cols).
        source: name of the origin, to be printed.
        class_names: a name for each label.
        validation_images, validation_labels: training samples that are held out of training; see `holdout.hold_out`.
        undivided_sha256: the digest before that; empty: nothing is held out.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    image_shape: tuple[int, int]
    source: str
    class_names: tuple[str, ...] = tuple("0123456789")
    validation_images: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    validation_labels: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    undivided_sha256: str = ""

    @cached_property
    def sha256(self) -> str:
        """Hex digest over the image shape and the four arrays with their shapes; equal for equal data, divided or not."""
        if self.undivided_sha256:
            return self.undivided_sha256
        digest = hashlib.sha256(repr(self.image_shape).encode())
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load(directory: Path) -> Dataset:
    """Load the data set of a folder that holds four files named as MNIST's, of any count and any image size.

    Args:
        directory: folder with the files, plain or gzipped, or with torchvision's `MNIST/raw`. Names may have a dot
            (`train-images.idx3-ubyte`). A file `classes.txt`, if there, has a name for each label, one a line.

    Returns:
        The data set, in memory of its own: files that change later do not matter.

    Raises:
        InputError: in one line, for a file that is missing, unreadable or damaged, or that does not fit the others.
    """
    folder = _folder(directory)
    train_images, train_labels = _part(folder, TRAIN_IMAGES, TRAIN_LABELS)
    test_images, test_labels = _part(folder, TEST_IMAGES, TEST_LABELS)
    rows, cols = train_images.shape[1:]
    test_rows, test_cols = test_images.shape[1:]
    if (test_rows, test_cols) != (rows, cols):
        got = f"images of {test_rows}x{test_cols}"
        raise idx.broken(_find(folder, TEST_IMAGES), got, f"{rows}x{cols} as in {TRAIN_IMAGES}")
    return Dataset(
        train_images=train_images.reshape(len(train_images), rows * cols),
        train_labels=train_labels,
        test_images=test_images.reshape(len(test_images), rows * cols),
        test_labels=test_labels,
        image_shape=(rows, cols),
        source=str(directory),
        class_names=_class_names(folder / CLASS_NAMES, num_needed=int(max(train_labels.max(), test_labels.max())) + 1),
    )


def _part(folder: Path, images_name: str, labels_name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = idx.read_images(_find(folder, images_name))
    labels_path = _find(folder, labels_name)
    labels = idx.read_labels(labels_path)
    if len(labels) != len(images):
        raise idx.broken(labels_path, f"{len(labels)} labels", f"{len(images)}, one for each image of {images_name}")
    return images, labels


def _folder(directory: Path) -> Path:
    """Return the folder, in or at `directory`, that has the training images; `directory` if none has."""
    try:
        if not directory.is_dir():
            what = "is not a folder" if directory.exists() else "there is no such folder"
            raise InputError(f"{directory}: {what}; wanted one with the four MNIST files; give it with --data DIR")
        folders = [directory / below for below in _FOLDERS]
        return next((folder for folder in folders if any(map(Path.is_file, _paths(folder, TRAIN_IMAGES)))), directory)
    except OSError as error:
        raise _unreadable(directory, error) from None


def _find(folder: Path, name: str) -> Path:
    """Return the path of a file of MNIST, plain before gzipped."""
    try:
        for path in _paths(folder, name):
            if path.is_file():
                return path
    except OSError as error:
        raise _unreadable(folder, error) from None
    raise InputError(f"{folder}: no {name} and no {name}.gz; put one there, or give another folder with --data DIR")


def _paths(folder: Path, name: str) -> list[Path]:
    """List the paths that a file of MNIST may have; some copies have a dot before `idx`."""
    spellings = (name, name.replace("-idx", ".idx"))
    return [folder / f"{spelling}{suffix}" for spelling, suffix in itertools.product(spellings, ("", ".gz"))]


def _unreadable(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder}: cannot be read ({error.strerror or error}); give another folder with --data DIR")


def _class_names(path: Path, num_needed: int) -> tuple[str, ...]:
    """Read the names of the classes, one a line; without a file, or for labels that it leaves out, digits."""
    digits = Dataset.class_names
    try:
        if not path.is_file():
            return digits
        with path.open("rb") as file:
            content = file.read(_MAX_NAMES_BYTES + 1)
        names = tuple(name.strip() for name in content.decode("utf-8").splitlines())
    except OSError as error:
        raise idx.broken(path, f"cannot be read ({error.strerror or error})", "a text file") from None
    except UnicodeDecodeError:
        raise idx.broken(path, "is not UTF-8", "a name for each label, one a line") from None
    if not num_needed <= len(names) <= len(digits) or len(content) > _MAX_NAMES_BYTES:
        got = f"{len(names)} names" if len(content) <= _MAX_NAMES_BYTES else f"more than {_MAX_NAMES_BYTES} bytes"
        raise idx.broken(path, got, f"{num_needed} to {len(digits)}, one for each label, one a line")
    for name in names:
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise idx.broken(path, f"the name {name[:_MAX_NAME]!r}", f"1 to {_MAX_NAME} printable characters")
    return names + digits[len(names) :]
