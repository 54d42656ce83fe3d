"""Dropout of the reference: the factor of each unit of each sample. Contract: `Ops.dropout`."""

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Dropout
from ddpgd.kernels.philox import Purpose, sample_words


class _Drawn(NamedTuple):
    epoch: int
    samples: NDArray[np.int64]
    factors: Array


class Masks:
    """masks(...): factors (R, n) of units, 0 or `scale`; those drawn last for a layer serve its backward pass, too."""

    def __init__(self) -> None:
        self._last: dict[tuple[Dropout, int, int], _Drawn] = {}

    def __call__(
        self, dropout: Dropout, epoch: int, samples: NDArray[np.int64], first: int, width: int, dtype: DTypeLike
    ) -> Array:
        """Returns the factors of units [first, first + width)."""
        last = self._last.get((dropout, first, width))
        if last is None or last.epoch != epoch or not np.array_equal(last.samples, samples):
            last = _Drawn(epoch, samples.copy(), self._draw(dropout, epoch, samples, first, width, dtype))
            self._last[dropout, first, width] = last
        return last.factors

    def _draw(
        self, dropout: Dropout, epoch: int, samples: NDArray[np.int64], first: int, width: int, dtype: DTypeLike
    ) -> Array:
        count = -(-(first + width) // 4)
        drawn = sample_words(dropout.seed, Purpose.DROPOUT, epoch, samples, count, dropout.layer)
        draws = drawn.astype("<u8", copy=False).view("<u2")[:, first : first + width]
        return np.multiply(draws >= dropout.threshold, dropout.scale, dtype=dtype)
