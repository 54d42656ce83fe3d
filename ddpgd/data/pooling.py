"""Pooling of images: the means of squares of pixels, for networks with fewer inputs than an image has pixels."""

import numpy as np
from numpy.typing import NDArray

from ddpgd.errors import InputError


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
    squares = images.reshape(len(images), rows, pool, cols, pool)
    sums = np.full((len(images), rows, cols), pool * pool // 2, np.uint32)
    for row in range(pool):
        for col in range(pool):
            sums += squares[:, :, row, :, col]
    return (sums // (pool * pool)).astype(np.uint8).reshape(len(images), rows * cols)
