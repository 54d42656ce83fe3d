"""Synthetic digits, drawn from strokes: the same bytes from the same seed on every machine.

Every value comes from Philox words by + - * / sqrt, min and max in float32 or float64, element by element; each of
these is exact to the last bit everywhere, as sin, exp and the sums of a library are not.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ddpgd.data.mnist import Dataset
from ddpgd.kernels.philox import Purpose, uniforms, words

SIDE = 28
BLOCK_IMAGES = 64
"""Images drawn at once: their pixels stay in the cache."""

_Corner = tuple[NDArray[np.float32], NDArray[np.float32]]

# The strokes of each digit on a page of 10 wide, 14 high, y downwards: "x y" in pairs of characters, 0-9 and a-e.
_GLYPHS = (
    ("51 23 17 2b 5d 8b 97 83 51",),
    ("33 51 5d",),
    ("14 22 41 62 84 86 68 4a 1d 9d",),
    ("12 41 72 84 75 56 36 56 78 9a 7c 4d 1b",),
    ("61 38 19 99", "71 7d"),
    ("81 31 26 46 77 99 8c 5d 1c",),
    ("71 43 26 19 2c 5d 8c 99 77 47 29",),
    ("11 91 66 4d",),
    ("51 32 24 36 57 88 9a 8c 5d 2c 1a 28 57 76 84 72 51",),
    ("84 62 31 14 27 57 84 82 84 88 7d",),
)
_NUM_CLASSES = len(_GLYPHS)
_PAGE_CENTRE = (5.0, 7.0)
_PIXELS_PER_UNIT = 1.35
_TRAIN, _TEST = 0, 1


def make(num_train: int = 6000, num_test: int = 1000, seed: int = 0) -> Dataset:
    """Draw `num_train` and `num_test` digits, white on black, 28x28: a function of the arguments alone.

    Labels are balanced to within one and shuffled. Digits differ in size, slant, place, thickness and the course of
    their strokes.
    """
    train_images, train_labels = _part(num_train, seed, _TRAIN)
    test_images, test_labels = _part(num_test, seed, _TEST)
    return Dataset(train_images, train_labels, test_images, test_labels, (SIDE, SIDE), f"synthetic digits, seed {seed}")


def _part(num: int, seed: int, part: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw images uint8 (num, 784) and labels uint8 (num,); part p draws from streams 2p and 2p + 1."""
    order = np.argsort(words(seed, Purpose.SYNTHETIC, 2 * part, num), kind="stable")
    labels = (order % _NUM_CLASSES).astype(np.uint8)
    glyphs = [[_points(stroke) for stroke in strokes] for strokes in _GLYPHS]
    num_points = max(sum(map(len, glyph)) for glyph in glyphs)
    num_chances = 7 + 2 * num_points
    chances = uniforms(seed, Purpose.SYNTHETIC, 2 * part + 1, num * num_chances).reshape(num, num_chances) * 2.0 - 1.0
    images = np.empty((num, SIDE * SIDE), np.uint8)
    for digit, glyph in enumerate(glyphs):
        members = np.flatnonzero(labels == digit)
        for start in range(0, len(members), BLOCK_IMAGES):
            block = members[start : start + BLOCK_IMAGES]
            images[block] = _draw(glyph, chances[block].T)
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


def _points(stroke: str) -> list[tuple[int, int]]:
    return [(int(pair[0], 16), int(pair[1], 16)) for pair in stroke.split()]


def _draw(glyph: list[list[tuple[int, int]]], chances: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draw images uint8 (n, 784) of one digit; chances: (7 + 2 * points, n) in [-1, 1), seven for the whole, two a point."""
    wide, high, slant, tilt, right, down, thick = chances[:7]
    wobble = iter(chances[7:])
    corners: list[list[_Corner]] = []
    for stroke in glyph:
        corners.append([])
        for x, y in stroke:
            x_unit = x - _PAGE_CENTRE[0] + 0.4 * next(wobble)
            y_unit = y - _PAGE_CENTRE[1] + 0.4 * next(wobble)
            x_pixel = ((1.0 + 0.3 * wide) * x_unit - 0.45 * slant * y_unit) * _PIXELS_PER_UNIT + 1.75 * right
            y_pixel = ((1.0 + 0.15 * high) * y_unit + 0.25 * tilt * x_unit) * _PIXELS_PER_UNIT + 1.75 * down
            corners[-1].append((_column(x_pixel), _column(y_pixel)))
    nearest = np.full((chances.shape[1], SIDE, SIDE), np.inf, np.float32)
    for stroke_corners in corners:
        for start, end in pairwise(stroke_corners):
            np.minimum(nearest, _squared_distance(*start, *end), out=nearest)
    cover = np.float32(1.35) + np.float32(0.45) * _column(thick) - np.sqrt(nearest)
    ink = np.minimum(np.maximum(cover, np.float32(0)), np.float32(1))
    images: NDArray[np.uint8] = (ink * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return images.reshape(-1, SIDE * SIDE)


def _column(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)[:, None, None]


def _squared_distance(
    x0: NDArray[np.float32], y0: NDArray[np.float32], x1: NDArray[np.float32], y1: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Measure every pixel from the segment between two points, relative to the middle: float32 (n, SIDE, SIDE)."""
    grid = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    right, down = grid[None, None, :] - x0, grid[None, :, None] - y0
    along_x, along_y = x1 - x0, y1 - y0
    length = np.maximum(along_x * along_x + along_y * along_y, np.float32(1e-6))
    place = right * (along_x / length) + down * (along_y / length)
    np.minimum(np.maximum(place, np.float32(0), out=place), np.float32(1), out=place)
    off_x: NDArray[np.float32] = right - place * along_x
    off_y: NDArray[np.float32] = down - place * along_y
    return off_x * off_x + off_y * off_y
