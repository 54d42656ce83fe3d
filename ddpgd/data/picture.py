"""Makes any picture of one digit look as MNIST's do, so that a network trained on them can read it.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998: the digit's box is fitted into 20x20
keeping its aspect, and its centre of mass is put at the middle of 28x28.
"""

import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpgd.errors import InputError

_WORK_SIDE = 1024
"""Larger pictures are reduced to this side, in pixels: enough for a digit that fills a twentieth of the page."""
_GRID = 64
"""Cells a side in which connected pieces are sought."""
_MIN_CONTRAST = 12.0
"""Least difference of digit and paper, in grey levels of 255."""
_DUST = 0.05
"""A piece of less than this part of the largest piece's pixels is no part of the digit."""
_EDGE = 0.15
"""Part of full ink at which the digit's box begins."""
_NEARLY = 0.15
"""Part by which the fit of a ready image may differ from 1."""
_BOX = 20 / 28
"""Part of an image's side that the digit's box may fill."""


def prepare(path: Path, image_shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The digit of a picture as uint8 (rows * cols,), white on black, fitted and centred as in MNIST.

    The picture: any size, in colour, grey or with transparency, dark on light or light on dark, one digit on it. One
    that has the shape and the fit already keeps its pixels. Raises InputError, in one line, for a file that is no
    readable picture and for a picture without a digit.
    """
    ink = _ink(_read(path))
    if ink is None:
        raise InputError(f"{path}: no digit in sight, wanted a picture of one that stands out from its paper")
    top, bottom, left, right = _box(ink)
    digit = ink[top:bottom, left:right]
    fit = min(image_shape[0] * _BOX / digit.shape[0], image_shape[1] * _BOX / digit.shape[1])
    if ink.shape == image_shape and abs(fit - 1) <= _NEARLY and _is_centred(ink):
        return np.rint(ink * 255).astype(np.uint8).ravel()
    return _placed(_scaled(digit, fit), image_shape).ravel()


def _read(path: Path) -> Image.Image:
    """The picture, upright, in RGBA, no side longer than _WORK_SIDE."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
                    return _eight_bits(picture)
                upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: too many pixels for a picture of a digit; wanted a smaller one") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture that can be read; wanted PNG, PGM, JPEG or the like") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        reason = getattr(error, "strerror", None) or "damaged or cut short"
        raise InputError(f"{path}: cannot be read ({reason}); wanted a picture of one digit") from None
    upright.thumbnail((_WORK_SIDE, _WORK_SIDE), Image.Resampling.BOX)
    return upright


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A picture of deeper samples with its own darkest and lightest brought to 0 and 255."""
    samples = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    spread = max(float(np.ptp(samples)), 1e-300)
    return Image.fromarray(((samples - samples.min()) / spread * 255).astype(np.uint8)).convert("RGBA")


def _ink(picture: Image.Image) -> NDArray[np.float32] | None:
    """How far each pixel lies from the paper's colour towards the digit's: float32 (height, width), 0 to 1.

    The paper's colour is the median of the picture's frame, so it may be dark, light or coloured; what the frame's
    noise can explain is 0. None if nothing stands out. A transparent picture lies on white or black, where it shows
    more.
    """
    on_white, on_black = (_flattened(picture, shade) for shade in ("white", "black"))
    pixels = on_white if np.ptp(on_white) >= np.ptp(on_black) else on_black
    contrast = pixels - np.median(_frame(pixels), axis=0)
    strength = np.sqrt((contrast * contrast).sum(axis=2))
    if strength.max() < _MIN_CONTRAST:
        return None
    towards = contrast[strength >= strength.max() / 2].mean(axis=0)
    towards /= max(float(np.sqrt((towards * towards).sum())), 1e-6)
    ink: NDArray[np.float32] = contrast @ towards
    frame = _frame(ink[:, :, None])
    noise = 1.4826 * float(np.median(np.abs(frame - np.median(frame))))
    floor, full = 3 * noise, float(ink.max())
    if full < max(2 * floor, _MIN_CONTRAST):
        return None
    relative: NDArray[np.float32] = np.clip((ink - floor) / (full - floor), 0, 1)
    return relative


def _flattened(picture: Image.Image, shade: str) -> NDArray[np.float32]:
    paper = Image.new("RGBA", picture.size, shade)
    return np.asarray(Image.alpha_composite(paper, picture).convert("RGB"), dtype=np.float32)


def _frame(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The pixels along the four sides: (num, channels)."""
    height, width, num_channels = pixels.shape
    thick = max(1, min(height, width) // 20)
    sides = (pixels[:thick], pixels[-thick:], pixels[:, :thick], pixels[:, -thick:])
    return np.concatenate([side.reshape(-1, num_channels) for side in sides])


def _box(ink: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (ends exclusive) of the digit: of all pieces of ink but dust."""
    mask = ink > _EDGE
    row_starts, col_starts = (np.unique(np.arange(_GRID) * side // _GRID) for side in mask.shape)
    counts = np.add.reduceat(np.add.reduceat(mask.astype(np.int64), row_starts, axis=0), col_starts, axis=1)
    pieces = _pieces(counts > 0)
    areas = np.bincount(pieces.ravel(), weights=counts.ravel())
    kept = (areas >= _DUST * areas.max())[pieces] & (counts > 0)
    row_cells = np.searchsorted(row_starts, np.arange(mask.shape[0]), side="right") - 1
    col_cells = np.searchsorted(col_starts, np.arange(mask.shape[1]), side="right") - 1
    mask &= kept[np.ix_(row_cells, col_cells)]
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1


def _pieces(filled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A number for each cell, equal in cells that touch, corners included; 0 in empty cells."""
    numbers = np.where(filled, np.arange(1, filled.size + 1).reshape(filled.shape), 0)
    while True:
        spread = np.lib.stride_tricks.sliding_window_view(np.pad(numbers, 1), (3, 3)).max(axis=(2, 3))
        spread = np.where(filled, spread, 0)
        if np.array_equal(spread, numbers):
            return numbers
        numbers = spread


def _centre_of_mass(ink: NDArray[np.float32]) -> tuple[float, float]:
    total = float(ink.sum())
    down = float((ink.sum(axis=1) * np.arange(ink.shape[0])).sum()) / total
    right = float((ink.sum(axis=0) * np.arange(ink.shape[1])).sum()) / total
    return down, right


def _is_centred(ink: NDArray[np.float32]) -> bool:
    found = _centre_of_mass(ink)
    return all(abs(place - side / 2) <= 1 for place, side in zip(found, ink.shape, strict=True))


def _scaled(digit: NDArray[np.float32], fit: float) -> NDArray[np.float32]:
    """The digit at `fit` times its size, its strongest ink brought back to 1."""
    height, width = (max(1, round(side * fit)) for side in digit.shape)
    small = np.asarray(Image.fromarray(digit).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    relative: NDArray[np.float32] = np.clip(small / small.max(), 0, 1)
    return relative


def _placed(digit: NDArray[np.float32], image_shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The digit on black, uint8 of `image_shape`, its centre of mass at the middle as far as its box stays inside."""
    image = np.zeros(image_shape, np.uint8)
    starts = []
    for centre, side, room in zip(_centre_of_mass(digit), digit.shape, image_shape, strict=True):
        starts.append(min(max(round(room / 2 - centre), 0), room - side))
    rows, cols = digit.shape
    image[starts[0] : starts[0] + rows, starts[1] : starts[1] + cols] = np.rint(digit * 255)
    return image
