"""Separate ink from paper in a picture, whatever their colours and however uneven the light.

A quadratic fitted to the paper's colours tells the ink's colour; along it, a morphological opening with a window wider
than any stroke gives the paper to be subtracted. Source of the latter (a "top-hat" transform): Gonzalez and Woods,
"Digital Image Processing", the section on grey-level morphology.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

_GRID = 64
"""Cells a side in which the paper is estimated."""
_MIN_CONTRAST = 12.0
"""Least difference of ink and paper, in grey levels of 255."""
_MIN_OVER_NOISE = 4.0
"""Least ratio of the strongest ink to the noise floor: that of blank paper is up to 3.3, that of digits 9 and more."""
_NUM_FITS = 10
_OPENING = 0.22
"""Radius of the opening as part of the longer side: more than half the width of any stroke."""
_DIM = 40.0
"""Paper darker than this, in grey levels, tells nothing of the light that falls on it."""


def find_ink(pixels: Floats) -> Floats | None:
    """Measure how far each pixel lies from the paper's colour towards the ink's.

    The paper is the frame of the picture and what continues it smoothly, so it may be dark, light or coloured. Ink is
    taken relative to the light on it: a pen has the same ink in a shadow.

    Args:
        pixels: float32 (height, width, 3), 0 to 255.

    Returns:
        float32 (height, width), 0 to 1, where noise is 0; None if nothing stands out.
    """
    cells = _cells(pixels)
    towards = _ink_colour(cells)
    along = cells @ towards
    base = _opened(along)
    light = _light(cells.mean(axis=2) - (along - base) * towards.mean())
    height, width = pixels.shape[:2]
    ink: Floats = (pixels @ towards - _enlarged(base, height, width)) / _enlarged(light, height, width)
    frame = _frame(ink)
    middle = float(np.median(frame))
    noise = 3 * 1.4826 * float(np.median(np.abs(frame - middle)))
    full = float(ink.max()) - middle
    if full < max(_MIN_OVER_NOISE * noise, _MIN_CONTRAST):
        return None
    relative: Floats = np.clip((ink - middle - noise) / (full - noise), 0, 1)
    return relative


def _ink_colour(cells: Floats) -> Floats:
    """Return the direction from the paper's colour to the ink's, float32 (3,), of length 1 (0 if there is no ink).

    The paper is a quadratic in both directions. Its fit starts from the frame; cells far from it, such as ink, are left
    out of the next fit.
    """
    basis, colours = _basis(*cells.shape[:2]), cells.reshape(-1, 3)
    at_frame = np.zeros(cells.shape[:2], bool)
    thick = max(1, min(cells.shape[:2]) // 20)
    at_frame[:thick] = at_frame[-thick:] = at_frame[:, :thick] = at_frame[:, -thick:] = True
    used = at_frame.ravel()
    for _ in range(_NUM_FITS):
        contrast = colours - basis @ np.linalg.lstsq(basis[used], colours[used], rcond=None)[0]
        strength = np.sqrt((contrast * contrast).sum(axis=1))
        used = strength <= 2.0 + 3 * np.median(strength[used])
    towards: Floats = contrast[strength >= strength.max() / 2].mean(axis=0)
    towards /= max(float(np.sqrt((towards * towards).sum())), 1e-6)
    return towards


def _basis(height: int, width: int) -> Floats:
    """Return 1, x, y, xx, xy and yy at the middles of cells, float32 (height * width, 6); the picture is -1 to 1."""
    down, right = ((2 * np.arange(side, dtype=np.float32) + 1) / side - 1 for side in (height, width))
    y, x = (axis.ravel() for axis in np.meshgrid(down, right, indexing="ij"))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def _opened(cells: Floats) -> Floats:
    """Return what of the ink's course, (rows, cols), is wider than any stroke: light, shadows, stains."""
    radius = max(1, round(_OPENING * max(cells.shape)))
    padding = [(min(radius, side - 1),) * 2 for side in cells.shape]
    # Light that rises or falls towards an edge goes on so beyond it; ink beyond it would not.
    padded = np.maximum(np.pad(cells, padding, mode="reflect", reflect_type="odd"), np.pad(cells, padding, mode="edge"))
    opened = _windowed(_windowed(padded, radius, largest=False), radius, largest=True)
    return opened[tuple(slice(before, before + side) for (before, _), side in zip(padding, cells.shape, strict=True))]


def _enlarged(cells: Floats, height: int, width: int) -> Floats:
    whole = Image.fromarray(np.ascontiguousarray(cells)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(whole, dtype=np.float32)


def _windowed(cells: Floats, radius: int, largest: bool) -> Floats:
    """Return the largest, or the smallest, cell of the square window around each cell; windows end at the edge."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (radius, radius)
        padded = np.pad(cells, padding, mode="edge")
        windows = sliding_window_view(padded, 2 * radius + 1, axis=axis)
        cells = windows.max(axis=-1) if largest else windows.min(axis=-1)
    return cells


def _light(paper: Floats) -> Floats:
    """Return the light on each cell as a share of the brightest; 1 where the paper is too dark to tell."""
    brightest = float(np.quantile(paper, 0.95))
    if brightest < _DIM:
        return np.ones_like(paper)
    light: Floats = np.clip(paper / brightest, 0.15, 1)
    return light


def _cells(pixels: Floats) -> Floats:
    """Average pixels (height, width, channels) over at most _GRID x _GRID cells."""
    for axis in (0, 1):
        side = pixels.shape[axis]
        starts = np.unique(np.arange(_GRID) * side // _GRID)
        counts = np.diff(starts, append=side).astype(np.float32)
        sums: Floats = np.add.reduceat(pixels, starts, axis=axis)
        pixels = np.divide(sums, counts.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)), dtype=np.float32)
    return pixels


def _frame(ink: Floats) -> Floats:
    """Return the pixels along the four sides."""
    thick = max(1, min(ink.shape) // 20)
    sides = (ink[:thick], ink[-thick:], ink[:, :thick], ink[:, -thick:])
    return np.concatenate([side.ravel() for side in sides])
