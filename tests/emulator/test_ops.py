"""The CUDA backend obeys the laws of ops: the same `.cu` text, run on the CPU through the unmodified binding."""

from collections.abc import Iterator

import pytest

from augment_laws import *  # noqa: F403
from matrix_laws import *  # noqa: F403
from op_laws import *  # noqa: F403
from op_laws import Bench

from . import fake_cupy

PRECISIONS = ("float32", "tf32", "float16", "bfloat16")


@pytest.fixture(params=PRECISIONS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with fake_cupy.install():
        from ddpgd.kernels.cuda.backend import Cuda

        yield Bench(Cuda(0, request.param), request.param)
