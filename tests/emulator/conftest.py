"""The fake CuPy for the tests here, and the orders in which the threads of a block run."""

from collections.abc import Iterator
from typing import Any

import pytest

from cores import pytest_configure  # noqa: F401 - a hook
from emulator import fake_cupy
from op_report import pytest_addoption, pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown  # noqa: F401 - hooks
from patience import pytest_runtest_protocol  # noqa: F401 - a hook

ORDERS = ["forward", "reverse", "random:1", "random:2", "interleaved:1"]


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    with fake_cupy.install() as module:
        yield module


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DDPGD_EMULATOR_ORDER", request.param)
    return str(request.param)
