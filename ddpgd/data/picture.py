"""Read picture files of one digit and make them look as MNIST's images do, so that a network trained on those can read them."""

import logging
import stat
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpgd.data.digit import NoDigitError, fit_digit
from ddpgd.data.ink import find_ink
from ddpgd.errors import InputError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a file is told once, by this module

FORMATS = ("PNG", "JPEG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
"""Formats that are read, as Pillow names them (PPM: PBM, PGM and PPM); none that starts another program, as EPS does."""
MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded, which takes at most about 16 bytes a pixel."""
MAX_FILE_BYTES = 256 << 20
_WORK_SIDE = 1024
"""Larger pictures are reduced to this side, in pixels: enough for a digit that fills a twentieth of the page."""


def prepare(path: Path, image_shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a picture and fit its digit into an image as in MNIST.

    Args:
        path: a picture of any size in one of FORMATS, in colour, grey or with transparency, dark on light or light on
            dark, in even or uneven light, with one digit on it. Its content decides, not its name.
        image_shape: (rows, cols) of the image wanted. A picture with this shape and the fit already keeps its pixels.

    Returns:
        uint8 (rows * cols,), white on black.

    Raises:
        InputError: in one line, for a file that is no readable picture, and for a picture without a single digit.
    """
    ink = find_ink(_read(path))
    if ink is None:
        raise InputError(f"{path}: no digit in sight, wanted a picture of one that stands out from its paper")
    try:
        return fit_digit(ink, image_shape)
    except NoDigitError as error:
        raise InputError(f"{path}: no single digit ({error}); wanted a picture of one") from None


def _read(path: Path) -> NDArray[np.float32]:
    """Read the pixels, upright, float32 (height, width, 3), 0 to 255, no side longer than _WORK_SIDE."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is not a file; wanted a picture of one digit")
        if status.st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: has {status.st_size:,} bytes; wanted a picture of at most {MAX_FILE_BYTES:,}")
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width}x{picture.height}"
                raise InputError(f"{path}: too many pixels ({size}); wanted at most {MAX_PIXELS // 10**6} million")
            return _on_paper(_upright(picture))
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{path}: too many pixels; wanted at most {MAX_PIXELS // 10**6} million") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture that can be read; wanted {', '.join(FORMATS)}") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything for a damaged file
        reason = getattr(error, "strerror", None) or "damaged or cut short"
        raise InputError(f"{path}: cannot be read ({reason}); wanted a picture of one digit") from None


def _upright(picture: Image.Image) -> Image.Image:
    """Decode a picture as RGBA, reduced and turned as its EXIF data say."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _eight_bits(picture)
    small = picture.convert("RGBA") if picture.mode in ("1", "P", "PA") else picture
    small.thumbnail((_WORK_SIDE, _WORK_SIDE), Image.Resampling.BOX)
    return ImageOps.exif_transpose(small).convert("RGBA")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Reduce a picture of deeper samples and bring its own darkest and lightest to 0 and 255."""
    samples = np.nan_to_num(np.array(picture, dtype=np.float32), copy=False)
    small = Image.fromarray(samples)
    small.thumbnail((_WORK_SIDE, _WORK_SIDE), Image.Resampling.BOX)
    levels = np.asarray(small, dtype=np.float64)
    spread = max(float(np.ptp(levels)), 1e-300)
    return Image.fromarray(((levels - levels.min()) / spread * 255).astype(np.uint8)).convert("RGBA")


def _on_paper(picture: Image.Image) -> NDArray[np.float32]:
    """Lay the picture on white or black, where it shows more if it is transparent."""
    on_white, on_black = (_flattened(picture, shade) for shade in ("white", "black"))
    return on_white if np.ptp(on_white) >= np.ptp(on_black) else on_black


def _flattened(picture: Image.Image, shade: str) -> NDArray[np.float32]:
    paper = Image.new("RGBA", picture.size, shade)
    return np.asarray(Image.alpha_composite(paper, picture).convert("RGB"), dtype=np.float32)
