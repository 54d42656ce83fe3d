"""The CUDA formula that CONTRIBUTING.md shows obeys the laws of ops in emulation."""

from pathlib import Path

from contributing import applied, num_passed


def test_the_kernel_of_the_added_rule_is_compared_with_its_formula(tmp_path: Path) -> None:
    assert num_passed(applied(tmp_path), "tests/emulator/test_ops.py") >= 16
