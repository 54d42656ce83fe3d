"""The reference obeys the laws of wires."""

import pytest

from ddpgd.kernels.reference.backend import Reference
from wire_laws import *  # noqa: F403
from wire_laws import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench(Reference(), "float32")
