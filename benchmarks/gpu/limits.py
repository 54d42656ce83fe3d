"""The least that a step could take: its FLOP, its bytes, its launches, each over what the machine was seen to do."""

from itertools import pairwise
from typing import Any

from benchmarks.gpu.cases import Case

LAUNCH_S = 1e-6
"""Of one kernel after another in a captured graph."""


def counts(case: Case) -> dict[str, Any]:
    """FLOP of all products; bytes where params, optimizer state, gradient and activations are read and written once.

    Each weight has a copy in 16 bits where products take those. Small networks stay in the L2 cache, which is faster.
    """
    layers = list(pairwise(case.sizes))
    products = sum(2 * case.rows * k * n for k, n in layers)
    num_params = sum((k + 1) * n for k, n in layers)
    itemsize = 2 if case.precision in ("float16", "bfloat16") else 4
    vectors = 3 * 2 * 4 * num_params + (2 * 2 * num_params if itemsize == 2 else 0)
    activations = 2 * itemsize * case.rows * (sum(case.sizes) + sum(case.sizes[1:]))
    return {
        "flop": 3 * products - 2 * case.rows * case.sizes[0] * case.sizes[1],
        "bytes": vectors + activations + case.rows * case.sizes[0],
    }


def limits(work: dict[str, Any], flop_per_s: float | None, bytes_per_s: float | None) -> dict[str, Any]:
    """Seconds that each resource alone would take; no step is faster than the largest."""
    found = {"launches": work["launches"] * LAUNCH_S}
    if flop_per_s:
        found["FLOP"] = work["flop"] / flop_per_s
    if bytes_per_s:
        found["bytes"] = work["bytes"] / bytes_per_s
    return found
