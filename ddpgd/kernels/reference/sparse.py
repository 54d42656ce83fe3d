"""The reference of sparse wires: accumulation with momentum correction, the largest elements, and their sum."""

import numpy as np

from ddpgd.kernels.codec_ops import Array
from ddpgd.kernels.reference.updates import clear

_MAGNITUDE = np.uint32(0x7FFFFFFF)


def accumulate(values: Array, factor: float, velocity: Array | None, momentum: float, residual: Array) -> None:
    """`WireOps.accumulate`."""
    scaled = values * np.float32(factor)
    if velocity is None:
        residual += scaled
    else:
        velocity *= np.float32(momentum)
        velocity += scaled
        residual += velocity
        clear(velocity, scaled)


def select(residual: Array, velocity: Array | None, indices: Array, values: Array) -> None:
    """`WireOps.select`. The bits of magnitudes are in the order of the magnitudes."""
    magnitudes = residual.view(np.uint32) & _MAGNITUDE
    least = np.partition(magnitudes, residual.size - indices.size)[residual.size - indices.size]
    chosen = magnitudes > least
    equal = np.flatnonzero(magnitudes == least)
    chosen[equal[: indices.size - np.count_nonzero(chosen)]] = True
    indices[...] = np.flatnonzero(chosen)
    values[...] = residual[indices]
    residual[indices] = 0
    if velocity is not None:
        velocity[indices] = 0


def scatter_add(indices: Array, values: Array, factor: float, out: Array) -> None:
    """`WireOps.scatter_add`."""
    out[indices] += np.float32(factor) * values
