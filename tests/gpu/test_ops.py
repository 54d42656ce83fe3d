"""The CUDA backend obeys the laws of ops on a GPU."""

from functools import cache
from typing import Any

import pytest

from augment_laws import *  # noqa: F403
from ddpgd.kernels.cuda.sources import PRECISIONS
from matrix_laws import *  # noqa: F403
from op_laws import *  # noqa: F403
from op_laws import Bench


@cache
def backend(precision: str) -> tuple[Bench, Any]:
    """One backend a precision, whose kernels are then loaded once, and its stream."""
    import cupy

    from ddpgd.kernels.cuda.backend import Cuda

    return Bench(Cuda(0, precision), precision), cupy.cuda.get_current_stream()


@pytest.fixture(params=PRECISIONS)
def bench(request: pytest.FixtureRequest) -> Bench:
    made, stream = backend(request.param)
    stream.use()
    return made
