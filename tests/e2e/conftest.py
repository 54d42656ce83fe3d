"""Running the program as its users do: in processes of its own, alone or under mpirun."""

import importlib
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from patience import pytest_runtest_protocol  # noqa: F401 - a hook

ROOT = Path(__file__).parents[2]
MPIRUN = shlex.split(os.environ.get("DDPGD_MPIRUN", "mpirun --oversubscribe"))
PYTHON = [sys.executable]
DDPGD = [*PYTHON, "-m", "ddpgd"]

Run = Callable[..., subprocess.CompletedProcess[str]]


def under_mpirun(num_ranks: int, command: list[str]) -> list[str]:
    return [*MPIRUN, "-n", str(num_ranks), *command]


def run_ddpgd(num_ranks: int, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`ddpgd ARGUMENTS` on `num_ranks` ranks; 0: without mpirun."""
    command = [*DDPGD, *map(str, arguments)]
    full = under_mpirun(num_ranks, command) if num_ranks else command
    return subprocess.run(full, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def run_module(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A module of benchmarks/ or tools/, run in the checkout."""
    command = [*PYTHON, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def call_module(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The `main` of a module, called in this process: for what needs no process of its own, such as refusals."""
    command = list(map(str, arguments))
    said, complained = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(complained):
        try:
            code = importlib.import_module(module).main(command)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            if isinstance(end.code, str):
                print(end.code, file=complained)
    return subprocess.CompletedProcess(command, code, said.getvalue(), complained.getvalue())


def call_ddpgd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`ddpgd ARGUMENTS` on one rank, in this process."""
    return call_module("ddpgd.cli.main", *arguments)


def in_lab(command: list[str]) -> list[str]:
    """The command on the first of two hosts that a link of 1 Gbit/s joins."""
    return [
        *PYTHON,
        "-m",
        "tools.netlab",
        *["--hosts", "2", "--rate", "1gbit", "--first", "--"],
        *command,
    ]


@pytest.fixture(scope="session")
def lab() -> None:
    """Skips the test where `in_lab` does not work."""
    done = subprocess.run(in_lab(["true"]), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip())


def summary(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def mnist() -> str:
    """The real MNIST: where DDPGD_DATA says, or fetched into the user's cache."""
    fetched = subprocess.run([*DDPGD, "data"], capture_output=True, text=True, check=False)
    assert fetched.returncode == 0, fetched.stderr
    return fetched.stdout


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on drawn digits, with checkpoints after 2, 4 and 6 steps."""
    folder = tmp_path_factory.mktemp("small")
    arguments = ("--data", "synthetic", "--hidden", "16", "--steps", "6", "--checkpoint-every", "2", "--quiet")
    done = run_ddpgd(0, "train", *arguments, "--run-dir", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(autouse=True)
def folder_of_mpirun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives mpirun a new TMPDIR: one that is killed leaves a folder there, in which no later one with its pid can start."""
    with tempfile.TemporaryDirectory(prefix="mpirun-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield


LABS = {"test_two_level", "test_netlab", "test_cluster", "test_slurm", "test_scaling_efficiency"}
"""Files with labs, of which one removes what another that was killed has left."""


class ByFile(LoadScopeScheduling):
    """Keeps the tests of a file on one of pytest-xdist's workers, because they share runs; labs come one at a time."""

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.split("::")[0]).stem
        return "labs" if name in LABS else name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)
