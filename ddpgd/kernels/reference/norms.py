"""Limits of norms in the reference. Contract: `Ops.limit_norms`."""

import numpy as np

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.reference.scratch import Scratch

LANES = 32
"""Partial sums of a column."""


def limit_norms(scratch: Scratch, weight: Array, limit: float) -> None:
    """Scales the columns of weight (K, N) whose norm is larger than `limit`."""
    shape, dtype = (LANES, weight.shape[1]), weight.dtype
    sums, squares, largest = (
        scratch("norm sums", shape, dtype),
        scratch("norm squares", shape, dtype),
        dtype.type(limit),
    )
    sums.fill(0)
    for start in range(0, len(weight), LANES):
        part = weight[start : start + LANES]
        np.multiply(part, part, out=squares[: len(part)])
        np.add(sums[: len(part)], squares[: len(part)], out=sums[: len(part)])
    span = 1
    while span < LANES:
        np.add(sums[:: 2 * span], sums[span :: 2 * span], out=sums[:: 2 * span])
        span *= 2
    norms = np.sqrt(sums[0], out=sums[0])
    if not (norms <= largest).all():
        np.divide(largest, np.maximum(norms, largest, out=norms), out=norms)
        np.multiply(weight, norms, out=weight)
