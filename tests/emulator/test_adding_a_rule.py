"""The CUDA formulas that CONTRIBUTING.md shows obey the laws of their kind in emulation."""

from pathlib import Path

import pytest

from contributing import applied, num_passed

LEAST_PASSED = {"test_ops.py": 16, "test_wire_ops.py": 6}


@pytest.mark.deep
def test_the_kernels_of_what_is_added_are_compared_with_their_formulas(tmp_path: Path) -> None:
    passed = num_passed(applied(tmp_path / "copy"), *(f"tests/emulator/{file}" for file in LEAST_PASSED))
    assert [file for file, least in LEAST_PASSED.items() if passed[f"tests/emulator/{file}"] < least] == []
