"""launch/mps.sh: the service starts before the ranks and ends after them, with a stand-in for NVIDIA's control program."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, summary

MPS = str(ROOT / "launch" / "mps.sh")
STAND_IN = """#!/usr/bin/env bash
[[ ${1-} == -d ]] || read -r word
echo "${1-$word} ${CUDA_VISIBLE_DEVICES-none} $CUDA_MPS_PIPE_DIRECTORY ${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE-all}" >>"$LOG"
"""
needs_venv = pytest.mark.skipif(
    not (ROOT / ".venv").exists(), reason="launchers want the environment of scripts/setup.sh"
)


def start(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    control = folder / "nvidia-cuda-mps-control"
    control.write_text(STAND_IN)
    control.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "LOG": str(folder / "log"),
        "CUDA_VISIBLE_DEVICES": "2,3",
    }
    command = [MPS, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@needs_venv
def test_the_service_lives_as_long_as_the_ranks(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = start(
        tmp_path, 3, "--backend", "numpy", "--data", "synthetic", "--hidden", "16", "--steps", "5", "--run-dir", run
    )
    assert done.returncode == 0, done.stderr
    assert summary(run)["world_size"] == 3
    began, ended = ((tmp_path / "log").read_text()).splitlines()
    start_word, gpu, folder, percentage = began.split()
    assert (start_word, gpu, percentage) == ("-d", "2", "33")
    assert ended == f"quit none {folder} 33"
    assert not Path(folder).exists()


@needs_venv
def test_it_ends_after_ranks_that_fail(tmp_path: Path) -> None:
    done = start(tmp_path, 2, "--optimizer", "none")
    assert done.returncode == 2
    assert (tmp_path / "log").read_text().splitlines()[-1].startswith("quit ")


@pytest.mark.parametrize("arguments", [(), ("--epochs", "5"), ("0",)])
def test_the_number_of_ranks_is_wanted(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([MPS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "type how many ranks share the GPU, as in:" in done.stderr


def test_without_the_driver_it_says_what_to_type(tmp_path: Path) -> None:
    for program in ("bash", "dirname"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run([MPS, "4"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "without a GPU type RANKS=4 launch/local.sh" in done.stderr


SHARE = """
source <(sed -n '/^share_multiprocessors()/,/^}/p' launch/mps.sh)
say() { echo "$*"; }
share_multiprocessors 3
echo "${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE-all}"
"""


@pytest.mark.parametrize(
    ("installed", "given", "told"),
    [(False, {}, "33"), (True, {}, "all"), (True, {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "20"}, "20")],
)
def test_no_rank_is_limited_where_cublas_computes(
    installed: bool, given: dict[str, str], told: str, tmp_path: Path
) -> None:
    if installed:
        (tmp_path / "nvmath.py").touch()
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)} | given
    done = subprocess.run(["bash", "-c", SHARE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == told, done.stderr
    assert ("cuBLAS is installed" in done.stdout) == (told == "all")
