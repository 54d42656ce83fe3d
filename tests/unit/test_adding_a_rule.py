"""An optimizer, a schedule and a codec are added as CONTRIBUTING.md shows it, and every law picks them up."""

from pathlib import Path

import pytest

from contributing import applied, num_passed


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return applied(tmp_path_factory.mktemp("copy"))


LEAST_PASSED = {
    "test_codec.py": 58,
    "test_config.py": 1,
    "test_ops.py": 26,
    "test_optim.py": 12,
    "test_plan.py": 1,
    "test_schedule.py": 10,
    "test_state.py": 5,
    "test_sync.py": 1,
    "test_traffic.py": 64,
    "test_train.py": 5,
    "test_wire.py": 254,
}


@pytest.mark.parametrize("file", LEAST_PASSED)
def test_the_laws_pick_up_what_the_page_adds(copy: Path, file: str) -> None:
    assert num_passed(copy, f"tests/unit/{file}") >= LEAST_PASSED[file]
