"""The CUDA backend obeys the laws of ops on a GPU."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from op_laws import *  # noqa: F403
from op_laws import ERRORS, Bench

from ddpgd.kernels.sources import PRECISIONS


@cache
def backend(precision: str) -> tuple[Bench, Any]:
    """One backend a precision, whose kernels are then loaded once, and its stream."""
    import cupy

    from ddpgd.kernels.cuda import Cuda

    return Bench(Cuda(0, precision), precision), cupy.cuda.get_current_stream()


@pytest.fixture(params=PRECISIONS)
def bench(request: pytest.FixtureRequest) -> Bench:
    made, stream = backend(request.param)
    stream.use()
    return made


@pytest.fixture(scope="module", autouse=True)
def largest_errors() -> Iterator[None]:
    """Says how far each op was from its formula, which a look at the limits wants to know."""
    yield
    largest: dict[tuple[str, str], float] = {}
    for (op, _, precision), error in ERRORS.items():
        largest[op, precision] = max(error, largest.get((op, precision), 0.0))
    print(*(f"\n{op:24} {precision:9} {error:.2e}" for (op, precision), error in sorted(largest.items())))
