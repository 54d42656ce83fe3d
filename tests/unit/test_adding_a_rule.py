"""An optimizer, a schedule and a codec are added as CONTRIBUTING.md shows it, and every law picks them up."""

from pathlib import Path

import pytest

from contributing import applied, num_passed


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return applied(tmp_path_factory.mktemp("copy"))


@pytest.mark.parametrize(
    ("file", "at_least"),
    [("test_ops.py", 26), ("test_optim.py", 12), ("test_schedule.py", 10), ("test_sync.py", 1), ("test_train.py", 5)],
)
def test_the_laws_pick_up_what_the_page_adds(copy: Path, file: str, at_least: int) -> None:
    assert num_passed(copy, f"tests/unit/{file}") >= at_least
