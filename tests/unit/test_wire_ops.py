"""The reference obeys the laws of wires."""

import pytest
from wire_laws import *  # noqa: F403
from wire_laws import Bench

from ddpgd.kernels.reference import Reference


@pytest.fixture
def bench() -> Bench:
    return Bench(Reference(), "float32")
