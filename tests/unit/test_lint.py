"""The linter finds nothing in this checkout, whatever folders of a user are beside it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("ddpgd", "benchmarks", "tools", "scripts", "examples", "tests", "pyproject.toml")


@pytest.mark.parametrize("folder", [None, "runs", "trial", "build", "data"])
def test_ruff_passes_with_a_folder_of_a_user(tmp_path: Path, folder: str | None) -> None:
    """First-party names must not depend on it: `runs/` beside `tests/runs.py` made imports sort in another way."""
    for name in SOURCES:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, tmp_path)
        for path in (ROOT / name).rglob("*.py"):
            copied = tmp_path / path.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copied)
    if folder:
        (tmp_path / folder).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
