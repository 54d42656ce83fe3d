"""Ranks in processes of their own, each with an emulated GPU: one or several on a device, the same bits."""

import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ddpgd.comm.launcher import node
from runs import write_small_digits

MPIRUN = shlex.split(os.environ.get("DDPGD_MPIRUN", "mpirun --oversubscribe"))
SITE = Path(__file__).parent / "site"
SMALL = "train --hidden 12 --steps 4 --global-batch 50 --micro-batch 9 --evaluate-every 99 --quiet"


@cache
def small_data() -> "TemporaryDirectory[str]":
    """A folder with few and small samples, which is there as long as this process is."""
    folder = TemporaryDirectory()
    write_small_digits(Path(folder.name))
    return folder


def launch(num_ranks: int, folder: Path, *flags: str, devices: str = "1") -> subprocess.CompletedProcess[str]:
    """A short run in `folder`; 0 ranks: without mpirun."""
    environment = os.environ | {
        "PYTHONPATH": str(SITE),
        "DDPGD_EMULATOR_DEVICES": devices,
        "DDPGD_DATA": small_data().name,
    }
    command = [sys.executable, "-m", "ddpgd", *SMALL.split(), "--run-dir", str(folder), *flags]
    full = [*MPIRUN, "-n", str(num_ranks), *command] if num_ranks else command
    return subprocess.run(full, env=environment, capture_output=True, text=True, check=False)


def test_ranks_that_share_a_gpu_have_the_bits_of_one(tmp_path: Path) -> None:
    hashes = set()
    for num_ranks in (0, 1, 2, 3, 4):
        done = launch(num_ranks, tmp_path / str(num_ranks), "--backend", "cupy", "--share-gpu")
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / str(num_ranks) / "summary.json").read_text())
        assert summary["backend"] == "cupy"
        assert summary["transport"] == ("mpi-host" if num_ranks > 1 else "alone")
        assert summary["transport_choice"] == ("NCCL wants a GPU for each rank" if num_ranks > 1 else "")
        hashes.add(summary["params_sha256"])
    assert len(hashes) == 1


@pytest.mark.parametrize("transport", ["mpi-cuda", "nccl"])
def test_transports_of_device_memory_have_the_bits_of_one_rank(transport: str, tmp_path: Path) -> None:
    hashes = set()
    for num_ranks in (0, 3):
        flags = ("--transport", transport) if num_ranks else ()
        done = launch(num_ranks, tmp_path / str(num_ranks), "--backend", "cupy", *flags, devices="4")
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / str(num_ranks) / "summary.json").read_text())
        assert summary["transport"] == (transport if num_ranks else "alone")
        assert summary["wire_bytes_per_step"] > 0 or num_ranks == 0
        hashes.add(summary["params_sha256"])
    assert len(hashes) == 1


@pytest.mark.parametrize("wire", [pytest.param("float16", marks=pytest.mark.deep), "int8"])
def test_lossy_wires_over_transports_leave_the_same_weights(wire: str, tmp_path: Path) -> None:
    hashes = set()
    for transport in ("mpi-host", "mpi-cuda", "nccl"):
        flags = ("--transport", transport, "--wire", wire, "--error-feedback")
        done = launch(2, tmp_path / transport, "--backend", "cupy", *flags, devices="2")
        assert done.returncode == 0, done.stderr
        hashes.add(json.loads((tmp_path / transport / "summary.json").read_text())["params_sha256"])
    assert len(hashes) == 1


def test_each_rank_takes_a_gpu_of_its_own_where_there_are_enough(tmp_path: Path) -> None:
    done = launch(2, tmp_path / "run", devices="2")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["backend"] == "cupy"
    assert (summary["transport"], summary["transport_choice"]) == ("nccl", "each rank has a GPU of its own")


def test_a_gpu_of_one_rank_that_is_too_old_is_told_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPGD_EMULATOR_CAPABILITIES", "80,70")
    done = launch(2, tmp_path / "run", "--precision", "float16", devices="2")
    lines = [line for line in done.stderr.splitlines() if line.startswith("ddpgd: ")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert "needs GPUs of compute capability 8.0, and Emulated device has 7.0" in lines[0]


def test_nccl_that_is_not_installed_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPGD_EMULATOR_NCCL", "0")
    done = launch(2, tmp_path / "run", "--backend", "cupy", "--transport", "nccl", devices="2")
    lines = [line for line in done.stderr.splitlines() if line.startswith("ddpgd: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert "--transport nccl: CuPy finds no NCCL" in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ("130002,130002,0", "rank 2 on {} computes products by own kernels and rank 0 by cuBLAS 13.0.2 and cublasLt"),
        ("0,130002,130002", "rank 1 on {} computes products by cuBLAS 13.0.2 and cublasLt and rank 0 by own kernels"),
        (
            "130002,120905,130002",
            "rank 1 on {} computes products by cuBLAS 12.9.5 and cublasLt and rank 0 by cuBLAS 13.0.2",
        ),
    ],
)
def test_ranks_with_other_libraries_of_products_do_not_start(
    versions: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPGD_EMULATOR_CUBLAS", versions)
    done = launch(3, tmp_path / "run", "--backend", "cupy", devices="3")
    lines = [line for line in done.stderr.splitlines() if line.startswith("ddpgd: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert told.format(node()) in lines[0]
    assert "type pip install 'ddpgd[cuda13]'" in lines[0]


def test_the_library_of_products_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPGD_EMULATOR_CUBLAS", "130002")
    assert launch(2, tmp_path / "run", "--backend", "cupy", devices="2").returncode == 0
    assert (
        json.loads((tmp_path / "run" / "summary.json").read_text())["hardware"].split(", ")[3]
        == "cuBLAS 13.0.2 and cublasLt"
    )


@pytest.mark.parametrize(
    ("num_ranks", "flags", "devices", "wanted"),
    [
        (2, ("--backend", "cupy"), "1", "ranks 0 and 1 share one Emulated device of"),
        (3, (), "2", "share one Emulated device of"),
        (2, ("--backend", "cupy"), "0", "--backend cupy: CuPy finds no GPU"),
        (2, ("--precision", "float16"), "0", "--precision float16 needs a GPU, and CuPy finds no GPU"),
        (2, ("--precision", "tf32", "--backend", "numpy"), "1", "--precision tf32 needs a GPU"),
        (2, ("--transport", "nccl", "--share-gpu"), "1", "--transport nccl: it wants a GPU for each rank"),
        (2, ("--transport", "mpi-cuda"), "0", "--transport mpi-cuda: it moves arrays of GPUs"),
    ],
)
def test_wrong_input_gets_one_line(
    num_ranks: int, flags: tuple[str, ...], devices: str, wanted: str, tmp_path: Path
) -> None:
    done = launch(num_ranks, tmp_path / "run", *flags, devices=devices)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ddpgd: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert wanted in lines[0]
    assert "type" in lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
