"""Fit the one digit of a picture into an image as MNIST's are.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998: the digit's box is fitted into 20x20
keeping its aspect, and its centre of mass is put at the middle of 28x28.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

_GRID = 64
"""Cells a side in which connected pieces are sought."""
_DUST = 0.05
"""A piece with less than this part of the heaviest piece's ink is no part of the digit."""
_EDGE = 0.15
"""Part of full ink at which the digit's box begins."""
_NEARLY = 0.15
"""Part by which the fit of a ready image may differ from 1."""
_BOX = 20 / 28
"""Part of an image's side that the digit's box may fill."""
_TWIN = 0.6
"""A piece beside another, of at least this part of its height, is a digit of its own."""
_WIDEST, _FULLEST = 2.5, 0.87
"""Largest ratio of width to height, and of ink to box, in MNIST; a full box narrower than _SLIM of its height is a 1."""
_SLIM = 0.5


class NoDigitError(ValueError):
    """The ink is no single digit; the message says why, in a few words."""


@dataclass(frozen=True)
class _Piece:
    """Connected ink: its box in pixels (ends exclusive)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top


def fit_digit(ink: Floats, image_shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Fit and centre the digit of a page as in MNIST.

    Args:
        ink: float32 (height, width), 0 to 1, with something in it.
        image_shape: (rows, cols) of the image wanted. A page that has this shape and the fit already keeps its pixels.

    Returns:
        uint8 (rows * cols,), white on black.

    Raises:
        NoDigitError: the ink has not the shape of a single digit.
    """
    pieces = _pieces(ink)
    _check_single(pieces)
    top, bottom = min(piece.top for piece in pieces), max(piece.bottom for piece in pieces)
    left, right = min(piece.left for piece in pieces), max(piece.right for piece in pieces)
    digit = ink[top:bottom, left:right]
    _check_shape(digit)
    fit = min(image_shape[0] * _BOX / digit.shape[0], image_shape[1] * _BOX / digit.shape[1])
    if ink.shape == image_shape and abs(fit - 1) <= _NEARLY and _is_centred(ink):
        return np.rint(ink * 255).astype(np.uint8).ravel()
    return _placed(_scaled(digit, fit), image_shape).ravel()


def _check_single(pieces: list[_Piece]) -> None:
    """Two pieces of like height, one beside or below the other, are two digits; parts of a broken digit overlap."""
    for one, other in combinations(pieces, 2):
        beside = one.right <= other.left or other.right <= one.left
        below = one.bottom <= other.top or other.bottom <= one.top
        if (beside or below) and min(one.height, other.height) >= _TWIN * max(one.height, other.height):
            raise NoDigitError(f"{len(pieces)} separate shapes")


def _check_shape(digit: Floats) -> None:
    aspect, filled = digit.shape[1] / digit.shape[0], float((digit > _EDGE).mean())
    if aspect > _WIDEST:
        raise NoDigitError(f"a shape {aspect:.1f} times as wide as high")
    if filled > _FULLEST and aspect > _SLIM:
        raise NoDigitError("a filled shape without strokes")


def _pieces(ink: Floats) -> list[_Piece]:
    """List the connected pieces of ink but dust."""
    mask = ink > _EDGE
    row_starts, col_starts = (np.unique(np.arange(_GRID) * side // _GRID) for side in mask.shape)
    sums = np.add.reduceat(np.add.reduceat(ink * mask, row_starts, axis=0), col_starts, axis=1)
    numbers = _connected(sums > 0)
    weights = np.bincount(numbers.ravel(), weights=sums.ravel())
    row_cells = np.searchsorted(row_starts, np.arange(mask.shape[0]), side="right") - 1
    col_cells = np.searchsorted(col_starts, np.arange(mask.shape[1]), side="right") - 1
    pixels = numbers[np.ix_(row_cells, col_cells)] * mask
    pieces = []
    for number in np.flatnonzero(weights >= _DUST * weights.max()):
        rows, cols = (np.flatnonzero((pixels == number).any(axis=axis)) for axis in (1, 0))
        pieces.append(_Piece(int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1))
    return pieces


def _connected(filled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the cells, equal in cells that touch, corners included; 0 in empty cells."""
    numbers = np.where(filled, np.arange(1, filled.size + 1).reshape(filled.shape), 0)
    while True:
        spread = sliding_window_view(np.pad(numbers, 1), (3, 3)).max(axis=(2, 3))
        spread = np.where(filled, spread, 0)
        if np.array_equal(spread, numbers):
            return numbers
        numbers = spread


def _centre_of_mass(ink: Floats) -> tuple[float, float]:
    total = float(ink.sum())
    down = float((ink.sum(axis=1) * np.arange(ink.shape[0])).sum()) / total
    right = float((ink.sum(axis=0) * np.arange(ink.shape[1])).sum()) / total
    return down, right


def _is_centred(ink: Floats) -> bool:
    found = _centre_of_mass(ink)
    return all(abs(place - side / 2) <= 1 for place, side in zip(found, ink.shape, strict=True))


def _scaled(digit: Floats, fit: float) -> Floats:
    """Resize the digit to `fit` times its size and bring most of its stroke back to 1, as in MNIST."""
    height, width = (max(1, round(side * fit)) for side in digit.shape)
    small = np.asarray(Image.fromarray(digit).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    stroke = float(np.quantile(small[small >= small.max() / 4], 0.75))
    relative: Floats = np.clip(small / stroke, 0, 1)
    return relative


def _placed(digit: Floats, image_shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Place the digit on black, uint8 of `image_shape`, its centre of mass at the middle as far as its box allows."""
    image = np.zeros(image_shape, np.uint8)
    starts = []
    for centre, side, room in zip(_centre_of_mass(digit), digit.shape, image_shape, strict=True):
        starts.append(min(max(round(room / 2 - centre), 0), room - side))
    rows, cols = digit.shape
    image[starts[0] : starts[0] + rows, starts[1] : starts[1] + cols] = np.rint(digit * 255)
    return image
