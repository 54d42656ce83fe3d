"""An optimizer, a schedule and a codec are added as CONTRIBUTING.md shows it, and every law picks them up."""

from pathlib import Path

from contributing import applied, num_passed

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
    "test_train.py": 1,
    "test_wire.py": 254,
}


def test_the_laws_pick_up_what_the_page_adds(tmp_path: Path) -> None:
    passed = num_passed(applied(tmp_path / "copy"), *(f"tests/unit/{file}" for file in LEAST_PASSED))
    assert [file for file, least in LEAST_PASSED.items() if passed[f"tests/unit/{file}"] < least] == []
