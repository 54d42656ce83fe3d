"""The CUDA backend obeys the laws of wires: the same `.cu` text, run on the CPU through the unmodified binding."""

from collections.abc import Iterator

import pytest

from twin_laws import *  # noqa: F403
from wire_laws import *  # noqa: F403
from wire_laws import Bench

from . import fake_cupy


@pytest.fixture
def bench() -> Iterator[Bench]:
    with fake_cupy.install():
        from ddpgd.kernels.cuda.backend import Cuda

        yield Bench(Cuda(0, "float32"), "float32")
