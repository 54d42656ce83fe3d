"""The CUDA formulas that CONTRIBUTING.md shows obey the laws of their kind in emulation."""

from pathlib import Path

import pytest

from contributing import applied, num_passed


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return applied(tmp_path_factory.mktemp("copy"))


@pytest.mark.parametrize(("file", "at_least"), [("test_ops.py", 16), ("test_wire_ops.py", 6)])
def test_the_kernels_of_what_is_added_are_compared_with_their_formulas(copy: Path, file: str, at_least: int) -> None:
    assert num_passed(copy, f"tests/emulator/{file}") >= at_least
