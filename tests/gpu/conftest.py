"""Tests of the CUDA backend on a GPU; where CuPy finds none, all are skipped for that one reason."""

import warnings
from pathlib import Path

import pytest
from op_laws import ERRORS

from ddpgd.kernels.cuda_device import select

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CuPy may say something of the machine's CUDA
    DEVICE, ABSENCE = select(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
            if ABSENCE:
                item.add_marker(pytest.mark.skip(reason=ABSENCE))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How far each op was from its formula at most: what a look at the laws' limits wants to know."""
    largest: dict[tuple[str, str], float] = {}
    for (op, _, precision), error in ERRORS.items():
        largest[op, precision] = max(error, largest.get((op, precision), 0.0))
    for (op, precision), error in sorted(largest.items()):
        terminalreporter.write_line(f"largest error of {op:22} {precision:9} {error:.1e}")
