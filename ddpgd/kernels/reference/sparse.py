"""The reference of sparse wires: accumulation with momentum correction, the largest elements, and their sum."""

import numpy as np

from ddpgd.kernels.codec_ops import Array

_MAGNITUDE = np.uint32(0x7FFFFFFF)


def accumulate(values: Array, factor: float, velocity: Array | None, momentum: float, kept: Array) -> None:
    """`WireOps.accumulate`."""
    scaled = values * np.float32(factor)
    if velocity is None:
        kept += scaled
    else:
        velocity *= np.float32(momentum)
        velocity += scaled
        kept += velocity


def select(kept: Array, velocity: Array | None, indices: Array, values: Array) -> None:
    """`WireOps.select`. Magnitudes are compared by their bits, whose order is theirs."""
    magnitudes = kept.view(np.uint32) & _MAGNITUDE
    least = np.partition(magnitudes, kept.size - indices.size)[kept.size - indices.size]
    chosen = magnitudes > least
    equal = np.flatnonzero(magnitudes == least)
    chosen[equal[: indices.size - np.count_nonzero(chosen)]] = True
    indices[...] = np.flatnonzero(chosen)
    values[...] = kept[indices]
    kept[indices] = 0
    if velocity is not None:
        velocity[indices] = 0


def scatter_add(indices: Array, values: Array, factor: float, out: Array) -> None:
    """`WireOps.scatter_add`."""
    out[indices] += np.float32(factor) * values
