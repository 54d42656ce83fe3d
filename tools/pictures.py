"""Pictures of a digit as people take them: uneven light, paper, boards, colours, transparency. Seeded, made in memory."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
HEIGHT, WIDTH = 360, 480


def placed(digit: NDArray[np.uint8], generator: np.random.Generator, turn_degrees: float = 0.0) -> Array:
    """Ink 0 to 1, (HEIGHT, WIDTH): the digit at a random size and place, turned by at most so much."""
    side = int(generator.integers(150, 300))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    large = large.rotate(generator.uniform(-turn_degrees, turn_degrees), Image.Resampling.BICUBIC)
    page = np.zeros((HEIGHT, WIDTH))
    top, left = int(generator.integers(5, HEIGHT - side - 5)), int(generator.integers(5, WIDTH - side - 5))
    page[top : top + side, left : left + side] = np.asarray(large) / 255
    return page


def ramp(generator: np.random.Generator) -> Array:
    """A plane over the page, 0 to 1, rising in a random direction."""
    angle = generator.uniform(0, 2 * np.pi)
    down, right = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    plane = np.cos(angle) * down + np.sin(angle) * right
    return np.asarray((plane - plane.min()) / np.ptp(plane))


def clouds(generator: np.random.Generator, cells: int) -> Array:
    """Smooth unevenness, -1 to 1, of about so many humps a side."""
    coarse = Image.fromarray(generator.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float64)


def lamp(generator: np.random.Generator) -> Array:
    """Light of a lamp over one place, 0 to 1, falling off with the distance."""
    down, right = np.meshgrid(np.linspace(0, 0.75, HEIGHT), np.linspace(0, 1, WIDTH), indexing="ij")
    distance = np.hypot(down - generator.uniform(0, 0.75), right - generator.uniform(0, 1))
    return 1 / (1 + 1.5 * distance**2)


def light_gradient(digit: NDArray[np.uint8], generator: np.random.Generator) -> Array:
    """Dark ink on paper whose light falls by 40 to 75 % from side to side."""
    light = 1 - generator.uniform(0.4, 0.75) * ramp(generator)
    return light * (235 - 195 * placed(digit, generator)) + generator.normal(0, 2, (HEIGHT, WIDTH))


def paper_photo(digit: NDArray[np.uint8], generator: np.random.Generator) -> Array:
    """A photo of paper: lamp light, stains, grain, blue ink, turned a little."""
    ink = placed(digit, generator, turn_degrees=8)[:, :, None]
    paper = np.array([225.0, 220.0, 205.0]) * (lamp(generator) + 0.05 * clouds(generator, 5))[:, :, None]
    pen = np.array([0.2, 0.25, 0.5])
    grain = generator.normal(0, 4, (HEIGHT, WIDTH, 1)) + 3 * clouds(generator, 90)[:, :, None]
    return np.asarray(paper * (1 - ink * (1 - pen)) + grain)


def board(digit: NDArray[np.uint8], generator: np.random.Generator) -> Array:
    """The other way round: chalk on a dark board, with light from one side."""
    light = 1 - generator.uniform(0.3, 0.6) * ramp(generator)
    chalk = placed(digit, generator) * (0.8 + 0.2 * clouds(generator, 60))
    return light * (60 + 8 * clouds(generator, 6) + 170 * chalk) + generator.normal(0, 3, (HEIGHT, WIDTH))


def coloured(digit: NDArray[np.uint8], generator: np.random.Generator) -> Array:
    """Two random colours that differ, in light that falls by 20 to 40 %."""
    paper, ink = generator.uniform(30, 240, 3), generator.uniform(30, 240, 3)
    while np.abs(paper - ink).max() < 90:
        ink = generator.uniform(30, 240, 3)
    share = placed(digit, generator)[:, :, None]
    light = 1 - generator.uniform(0.2, 0.4) * ramp(generator)
    return light[:, :, None] * (paper + share * (ink - paper)) + generator.normal(0, 2, (HEIGHT, WIDTH, 1))


def transparent(digit: NDArray[np.uint8], generator: np.random.Generator) -> Array:
    """Ink of one colour on nothing; the colour of what is not seen is random."""
    ink = placed(digit, generator)[:, :, None]
    shade = generator.choice([[0, 0, 0], [255, 255, 255], [200, 30, 30]])
    colours = np.where(ink > 0, shade, generator.uniform(0, 255, 3))
    return np.concatenate([colours, 255 * ink], axis=2)


def shadow(digit: NDArray[np.uint8], generator: np.random.Generator) -> Array:
    """Paper with the soft shadow of a hand over a part of it."""
    edge = 1 / (1 + np.exp(-(ramp(generator) - generator.uniform(0.3, 0.7)) * 25))
    light = 1 - generator.uniform(0.25, 0.5) * edge
    return light * (230 - 190 * placed(digit, generator, turn_degrees=5)) + generator.normal(0, 3, (HEIGHT, WIDTH))


KINDS: dict[str, Callable[[NDArray[np.uint8], np.random.Generator], Array]] = {
    kind.__name__: kind for kind in (light_gradient, paper_photo, board, coloured, transparent, shadow)
}


def file_of(pixels: Array, form: str) -> bytes:
    """The bytes of a picture file; `form` as Pillow names it."""
    out = BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, form)
    return out.getvalue()
