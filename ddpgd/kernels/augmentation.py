"""Augmentation: the part of the configuration that `Ops.gather_augment` reads, and its numbers that the host computes."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.philox import WORDS_PER_BLOCK

DRAW_BITS = 24
"""Bits of a draw: an upper part of each half of a word, the lower half first, so that float32 holds it exactly."""
NUM_MAP_DRAWS = 6
"""Draws of an affine map, among the 8 of the first block of words; the fields' draws follow that block."""


class Augmentation(NamedTuple):
    """Random transformations of images, each a function of the seed, the epoch and the sample's number.

    With draws v uniform in [-1, 1), an image of rows x cols pixels, seen from its centre, is
    1. scaled, its rows by 1 + scale v, its columns by 1 + scale v; 2. sheared to the right by the tangent of an angle
    shear v; 3. turned counter-clockwise by rotate v; 4. shifted down and right by shift v pixels; and, where
    `elastic_alpha` is not 0, each pixel comes from a place that is moved by two fields: elastic_alpha times draws v, one a
    pixel, smoothed by `gaussian`. Pixels between others are interpolated; those outside are 0.
    Simard, Steinkraus, Platt, "Best practices for convolutional neural networks applied to visual document analysis", 2003.

    Attributes:
        seed: That of the run.
        image_shape: (rows, cols).
        shift: Pixels.
        rotate: Degrees.
        scale: Part of the image's size.
        shear: Degrees.
        elastic_alpha: Pixels, before smoothing.
        elastic_sigma: Standard deviation of the Gaussian in pixels.
    """

    seed: int
    image_shape: tuple[int, int]
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic_alpha: float = 0.0
    elastic_sigma: float = 1.0

    @property
    def num_words(self) -> int:
        """Words of randomness of a sample."""
        rows, cols = self.image_shape
        return WORDS_PER_BLOCK + (rows * cols if self.elastic_alpha else 0)

    @property
    def spreads(self) -> NDArray[np.float32]:
        """Factors of the draws of a map, float32 (NUM_MAP_DRAWS,): shift twice, rotate, scale twice, shear; radians."""
        rotate, shear = math.radians(self.rotate), math.radians(self.shear)
        return np.array([self.shift, self.shift, rotate, self.scale, self.scale, shear], np.float32)


@cache
def gaussian(sigma: float, size: int) -> NDArray[np.float32]:
    """Returns the weights of neighbours at distances 0 to size - 1, float32 (size,): with both sides their sum is 1.

    They are 0 beyond 4 sigma, as in `scipy.ndimage.gaussian_filter`. The array is read-only.

    >>> gaussian(1.0, 3).round(3).tolist()
    [0.399..., 0.241..., 0.053...]
    """
    radius = int(4.0 * sigma + 0.5)
    weights = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(radius + 1)]
    total = math.fsum([*weights, *weights[1:]])
    kept = np.zeros(size, np.float32)
    kept[: radius + 1] = np.array(weights[:size]) / total
    kept.setflags(write=False)
    return kept
