"""The CUDA backend obeys the laws of wires on a GPU."""

import pytest

from twin_laws import *  # noqa: F403
from wire_laws import *  # noqa: F403
from wire_laws import Bench

from .test_ops import backend


@pytest.fixture
def bench() -> Bench:
    made, stream = backend("float32")
    stream.use()
    return made
