"""Pooling of images: the means of squares of pixels, for networks with fewer inputs than an image has pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.errors import InputError

MOST_POOLED = 256
"""Side of the largest squares."""
_SMALL = 16
"""That of the largest whose sums fit into 16 bits."""
_AT_ONCE = 1024
"""Images whose sums fit into the cache."""


def pooled_shape(image_shape: tuple[int, int], pool: int) -> tuple[int, int]:
    """Returns the rows and columns of images of `image_shape` after `pooled`.

    Raises:
        InputError: The images cannot be cut into such squares.

    >>> pooled_shape((28, 28), 2)
    (14, 14)
    """
    rows, cols = image_shape
    if rows % pool or cols % pool:
        fitting = [str(side) for side in range(1, min(rows, cols) + 1) if rows % side == cols % side == 0]
        raise InputError(
            f"--input-pool {pool}: images of {rows}x{cols} pixels cannot be cut into such squares; sides that fit are "
            f"{', '.join(fitting)}"
        )
    return rows // pool, cols // pool


def pooled(images: NDArray[np.uint8], image_shape: tuple[int, int], pool: int) -> NDArray[np.uint8]:
    """Returns the means of each image's squares of `pool` x `pool` pixels, rounded to the nearest; halves upwards.

    Args:
        images: uint8 (n, rows * cols).
        image_shape: (rows, cols).
        pool: Side of a square; 1: `images` itself is returned.

    Returns:
        uint8 (n, rows / pool * cols / pool).

    Raises:
        InputError: As `pooled_shape`.

    >>> pooled(np.array([[0, 1, 8, 8, 4, 3, 8, 8]], np.uint8), (2, 4), 2)
    array([[2, 8]], dtype=uint8)
    """
    rows, cols = pooled_shape(image_shape, pool)
    if pool == 1:
        return images
    dtype = np.uint16 if pool <= _SMALL else np.uint32
    means = np.empty((len(images), rows * cols), np.uint8)
    for first in range(0, len(images), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        lines = _added(images[part].reshape(-1, pool, cols * pool).astype(dtype))
        sums = _added(lines.reshape(-1, pool)) + pool * pool // 2
        means[part] = (sums // (pool * pool)).reshape(-1, rows * cols)
    return means


def _added(parts: NDArray[Any]) -> NDArray[Any]:
    """Returns the sum over axis 1, which is short: faster than `np.add.reduce`."""
    total = parts[:, 0].copy()
    for number in range(1, parts.shape[1]):
        total += parts[:, number]
    return total
