"""The launch of `gather_augment`: the constants of an augmentation, made once, and the place of its fields."""

import numpy as np

from ddpgd.kernels.augmentation import Augmentation, gaussian
from ddpgd.kernels.cuda.launcher import THREADS, Launcher
from ddpgd.kernels.device_ops import Array

MOST_SHARED_BYTES = 32 * 1024
"""Shared memory for the fields of an image, at most; those of larger images are in global memory."""
_NUM_FIELDS = 3
"""Fields of a row in memory: down, to the right, and one half smoothed."""


class Augment:
    """The augmentation of one device."""

    def __init__(self, launch: Launcher) -> None:
        self._launch = launch
        self._constants: dict[Augmentation, tuple[Array, Array | None]] = {}
        self._fields: dict[tuple[int, ...], Array] = {}

    def __call__(self, samples: tuple[object, ...], augmentation: Augmentation, x: Array, y: Array) -> None:
        """Fills x (R, K) and y (R,). `samples`: the kernel's first arguments, up to the shift of pixels."""
        (rows, cols), num_rows = augmentation.image_shape, len(y)
        assert x.shape[1] == rows * cols, f"{x.shape[1]} pixels, wanted {rows} x {cols}"
        spreads, weights = self._constants_of(augmentation)
        shared_bytes = 0 if weights is None else 4 * _NUM_FIELDS * rows * cols
        fields = None
        if shared_bytes > MOST_SHARED_BYTES:
            fields, shared_bytes = self._scratch(num_rows, _NUM_FIELDS * rows * cols), 0
        radius = 0 if weights is None else weights.size - 1
        numbers = spreads, weights, np.int32(radius), np.float32(augmentation.elastic_alpha)
        arguments = np.uint64(augmentation.seed), *numbers, fields, x, y, np.int32(rows), np.int32(cols)
        where = "augment.cu", "gather_augment", (num_rows,), (THREADS,)
        self._launch(*where, *samples, *arguments, shared_bytes=shared_bytes)

    def _constants_of(self, augmentation: Augmentation) -> tuple[Array, Array | None]:
        """Returns spreads and Gaussian weights; made once, in a rehearsal at the latest."""
        if augmentation not in self._constants:
            weights = None
            if augmentation.elastic_alpha:
                host = gaussian(augmentation.elastic_sigma, max(augmentation.image_shape))
                weights = self._launch.from_host(np.trim_zeros(host, "b"))
            self._constants[augmentation] = self._launch.from_host(augmentation.spreads), weights
        return self._constants[augmentation]

    def _scratch(self, *shape: int) -> Array:
        if shape not in self._fields:
            self._fields[shape] = self._launch.zeros(shape, np.float32)
        return self._fields[shape]
