"""The diffs that CONTRIBUTING.md shows, applied to a copy of the package and its tests, which then run there."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = "adagrad or quadratic or fixed8"
"""What the diffs add, as pytest's -k selects it."""


def applied(folder: Path) -> Path:
    """Copies the package and its tests into `folder` and applies every diff of the page."""
    for name in ("ddpgd", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    diffs = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    assert diffs
    for diff in diffs:
        done = subprocess.run(
            ["git", "apply", "-"], input=diff, text=True, cwd=folder, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\nupdate the diff in CONTRIBUTING.md"
    return folder


def num_passed(folder: Path, *files: str) -> "Counter[str]":
    """Runs pytest in `folder` on tests of what the diffs add; all must pass. Returns their number by file."""
    command = [sys.executable, "-m", "pytest", "-q", "-rp", "-p", "no:cacheprovider", "-k", NAMES, *files]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return Counter(re.findall(r"^PASSED (\S+?)::", done.stdout, re.MULTILINE))
