"""Small pictures inside a page: digits, and weights, as PNG in data URIs."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_NEGATIVE, _ZERO, _POSITIVE = (0.84, 0.37, 0.0), (0.97, 0.97, 0.97), (0.0, 0.45, 0.70)


def digit(image: NDArray[np.uint8]) -> str:
    """Returns the data URI of an image, uint8 (rows, cols), white on black."""
    return _uri(Image.fromarray(image))


def weights(values: NDArray[np.float32]) -> str:
    """Returns the data URI of a picture of weights, float32 (rows, cols): orange below zero, blue above, by their size."""
    top = float(np.abs(values).max()) or 1.0
    levels = np.rint(127 + 127 * np.nan_to_num(values / top)).astype(np.uint8)
    picture = Image.fromarray(levels).convert("P")
    picture.putpalette(_PALETTE)
    return _uri(picture)


def _uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _palette() -> list[int]:
    """Returns the colours of levels 0 to 254, of which 127 is zero."""
    stops = np.array([_NEGATIVE, _ZERO, _POSITIVE]) * 255
    levels = np.linspace(0, 2, 255)
    colours = np.stack([np.interp(levels, [0, 1, 2], stops[:, channel]) for channel in range(3)], axis=1)
    return [*np.rint(colours).astype(int).ravel().tolist(), 0, 0, 0]


_PALETTE = _palette()
