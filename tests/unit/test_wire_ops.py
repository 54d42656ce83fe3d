"""The reference obeys the laws of wires."""

import numpy as np
import pytest

from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.reference.sparse import accumulate
from wire_laws import *  # noqa: F403
from wire_laws import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench(Reference(), "float32")


def test_velocity_that_no_gradient_feeds_is_never_subnormal() -> None:
    values, velocity, residual = np.ones(64, np.float32), np.zeros(64, np.float32), np.zeros(64, np.float32)
    for _ in range(1000):
        accumulate(values, 1.0, velocity, 0.9, residual)
        assert ((velocity == 0) | (np.abs(velocity) >= np.finfo(np.float32).tiny)).all()
        values[:] = 0
    assert not velocity.any()
