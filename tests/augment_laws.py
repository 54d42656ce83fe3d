"""The laws of `gather_augment`, which every backend obeys: it equals plain formulas in float64, row by row.

A folder of tests that imports * from here supplies the fixture `bench`, a backend under test.
"""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.philox import Purpose, sample_words
from ddpgd.kernels.words import CURSOR_WORDS, Cursor
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD
from op_laws import Bench

Array = NDArray[Any]

NUM_IMAGES, FIRST, OFFSET, EPOCH = 60, 11, 3, 5
AFFINE = {"shift": 2.5, "rotate": 25.0, "scale": 0.2, "shear": 15.0}
ELASTIC = {"elastic_alpha": 20.0, "elastic_sigma": 2.0}
CASES = [
    Augmentation(0, (28, 28), **AFFINE),
    Augmentation(1, (5, 9), **AFFINE),
    Augmentation(2, (1, 1), **AFFINE),
    Augmentation(3, (12, 7), rotate=180.0),
    Augmentation(2**64 - 1, (28, 28), **AFFINE, **ELASTIC),
    Augmentation(4, (7, 12), **ELASTIC),
    Augmentation(5, (9, 6), elastic_alpha=3.0, elastic_sigma=0.3),
    Augmentation(6, (6, 6), shift=1.0, elastic_alpha=500.0, elastic_sigma=40.0),
    Augmentation(7, (60, 50), **AFFINE, **ELASTIC),
]
over_cases = pytest.mark.parametrize("augmentation", CASES, ids=lambda case: f"{case.image_shape}-{case.elastic_alpha}")


class Images:
    """Images, labels and an order; smooth enough that a place a little aside has nearly the same pixel."""

    def __init__(self, image_shape: tuple[int, int]) -> None:
        rng = np.random.default_rng(sum(image_shape))
        self.pixels = rng.integers(0, 256, (NUM_IMAGES, image_shape[0] * image_shape[1]), dtype=np.uint8)
        self.labels = rng.integers(0, 10, NUM_IMAGES, dtype=np.uint8)
        self.order = rng.permutation(NUM_IMAGES)
        self.cursor = np.zeros(CURSOR_WORDS, np.int64)
        self.cursor[Cursor.FIRST], self.cursor[Cursor.EPOCH] = FIRST, EPOCH

    def samples(self, num_rows: int, offset: int = OFFSET) -> Array:
        return self.order[FIRST + offset : FIRST + offset + num_rows]


def gathered(
    bench: Bench, images: Images, augmentation: Augmentation | None, num_rows: int, offset: int = OFFSET
) -> tuple[Array, Array]:
    """x and y on the host, in the backend's own types."""
    ops = bench.ops
    x = bench.nans((num_rows, images.pixels.shape[1]), ops.activation_dtype)
    y = bench.nans((num_rows,), np.int64)
    there = [ops.from_host(array) for array in (images.pixels, images.labels, images.order, images.cursor)]
    arguments = *there, offset, PIXEL_MEAN, PIXEL_STD
    if augmentation is None:
        ops.gather_normalise(*arguments, x, y)
    else:
        ops.gather_augment(*arguments, augmentation, x, y)
    return np.array(ops.to_host(x)), np.array(ops.to_host(y))


def places(augmentation: Augmentation, sample: int, epoch: int = EPOCH) -> Array:
    """The place in the image before of each pixel, float64 (2, rows, cols), by matrices and sums written out."""
    rows, cols = augmentation.image_shape
    words = sample_words(augmentation.seed, Purpose.AUGMENT, epoch, np.array([sample]), augmentation.num_words)[0]
    halves = np.stack([words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)], axis=1).ravel()
    draws = (halves >> np.uint64(8)).astype(np.float64) / 2**23 - 1
    angle, slant = math.radians(augmentation.rotate) * draws[2], math.radians(augmentation.shear) * draws[5]
    scaled = np.diag([1 + augmentation.scale * draws[3], 1 + augmentation.scale * draws[4]])
    sheared = np.array([[1, 0], [math.tan(slant), 1]])
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")).astype(np.float64)
    centre = np.array([(rows - 1) / 2, (cols - 1) / 2])
    moved = grid - (centre + augmentation.shift * draws[:2])[:, None, None]
    found: Array = np.einsum("ij,jrc->irc", np.linalg.inv(turned @ sheared @ scaled), moved) + centre[:, None, None]
    if augmentation.elastic_alpha:
        fields = draws[8:].reshape(2, rows, cols)
        down, across = (smoothing(augmentation.elastic_sigma, size) for size in (rows, cols))
        found += augmentation.elastic_alpha * np.einsum("ir,frc,jc->fij", down, fields, across)
    return found


def smoothing(sigma: float, size: int) -> Array:
    """The matrix of a Gaussian cut off at 4 sigma, float64 (size, size)."""
    radius = int(4 * sigma + 0.5)
    distance = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size))
    for row in range(size):
        for column in range(max(0, row - radius), min(size, row + radius + 1)):
            matrix[row, column] = weights[column - row + radius]
    return matrix


def interpolated(image: Array, at: Array) -> Array:
    """The pixels of an image (rows, cols) at places (2, rows, cols), bilinear, 0 outside."""
    rows, cols = image.shape
    padded = np.zeros((rows + 4, cols + 4))
    padded[2:-2, 2:-2] = image
    row, column = (np.clip(place, -1.5, side + 0.5) for place, side in zip(at, (rows, cols), strict=True))
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    down, right = row - top, column - left
    total = np.zeros(row.shape)
    for below in (0, 1):
        for beside in (0, 1):
            weight = (down if below else 1 - down) * (right if beside else 1 - right)
            total += weight * padded[top + 2 + below, left + 2 + beside]
    return total


@over_cases
def test_gather_augment(bench: Bench, augmentation: Augmentation) -> None:
    images, num_rows = Images(augmentation.image_shape), 9
    x, y = gathered(bench, images, augmentation, num_rows)
    samples = images.samples(num_rows)
    pixels = [
        interpolated(images.pixels[sample].reshape(augmentation.image_shape), places(augmentation, int(sample))).ravel()
        for sample in samples
    ]
    wanted = (np.array(pixels) / 255 - PIXEL_MEAN) / PIXEL_STD
    # A place is rounded to float32 too, and a pixel's neighbour may be 255 away.
    farthest = max(augmentation.image_shape) + augmentation.elastic_alpha
    eps = bench.activation_eps + 32 * farthest * float(np.finfo(np.float32).eps) / PIXEL_STD
    bench.check("gather_augment", bench.ops.from_host(x), wanted, eps=eps)
    np.testing.assert_array_equal(y, images.labels[samples])


@over_cases
def test_a_row_has_the_same_bits_wherever_batches_are_cut(bench: Bench, augmentation: Augmentation) -> None:
    images = Images(augmentation.image_shape)
    together, _ = gathered(bench, images, augmentation, 20)
    for start, end in ((0, 1), (1, 2), (0, 7), (7, 20)):
        x, y = gathered(bench, images, augmentation, end - start, OFFSET + start)
        assert x.tobytes() == together[start:end].tobytes()
        np.testing.assert_array_equal(y, images.labels[images.samples(end - start, OFFSET + start)])


@pytest.mark.parametrize("image_shape", [(28, 28), (5, 9), (1, 1)])
def test_an_augmentation_without_spread_changes_no_bit(bench: Bench, image_shape: tuple[int, int]) -> None:
    images = Images(image_shape)
    plain, labels = gathered(bench, images, None, 9)
    x, y = gathered(bench, images, Augmentation(3, image_shape), 9)
    assert x.tobytes() == plain.tobytes()
    np.testing.assert_array_equal(y, labels)
