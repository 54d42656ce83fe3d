"""Tests of the CUDA backend on a GPU; where CuPy finds none, all are skipped for that one reason."""

import warnings
from pathlib import Path

import pytest

from ddpgd.kernels.cuda.device import select
from op_report import pytest_addoption, pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown  # noqa: F401 - hooks

from .whole_runs import Runs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CuPy may say something of the machine's CUDA
    DEVICE, ABSENCE = select(0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
            if ABSENCE:
                item.add_marker(pytest.mark.skip(reason=ABSENCE))
