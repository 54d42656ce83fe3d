"""Law 1 on the real MNIST: the same configuration gives the same bits on any number of ranks."""

from pathlib import Path

import pytest
from conftest import call_ddpgd, run_ddpgd, summary

from runs import records

Way = tuple[int, tuple[str, ...]]
"""Ranks under mpirun (0: without it), and more arguments."""

LARGE = "784-512-512-10, global 500, micro 64, adam"
CONFIGURATIONS = {
    "784-128-10, global 512, micro 64": ("--hidden", "128", "--global-batch", "512", "--micro-batch", "64"),
    LARGE: (
        *(
            "--hidden",
            "512,512",
            "--global-batch",
            "500",
            "--micro-batch",
            "64",
            "--optimizer",
            "adam",
            "--lr",
            "0.001",
        ),
    ),
    "784-50-10, global 64, micro 32": ("--hidden", "50", "--global-batch", "64", "--micro-batch", "32"),
}
LENGTH = ("--steps", "130", "--evaluate-every", "65", "--log-every", "10", "--quiet")


MPI_WAYS = {f"mpi-host-{ranks}": (ranks, ()) for ranks in (1, 2, 3, 4)}
THREADS_WAYS = {f"threads-{ranks}": (0, ("--transport", "threads", "--ranks", str(ranks))) for ranks in (3, 7)}


def check_same_bits(folder: Path, configuration: str, ways: dict[str, Way]) -> None:
    """Every way of `ways` has the records and the weights of a run on one rank without MPI."""
    for way, (ranks, transport) in {"alone": (0, ()), **ways}.items():
        arguments = (*CONFIGURATIONS[configuration], *LENGTH, *transport, "--run-dir", way)
        done = run_ddpgd(ranks, "train", *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert summary(folder / way)["params_sha256"] == summary(folder / "alone")["params_sha256"], way
        assert records(folder / way) == records(folder / "alone"), way


@pytest.mark.usefixtures("mnist")
def test_any_number_of_ranks(tmp_path: Path) -> None:
    check_same_bits(tmp_path, "784-50-10, global 64, micro 32", MPI_WAYS | THREADS_WAYS)


@pytest.mark.deep
@pytest.mark.usefixtures("mnist")
def test_three_ranks(tmp_path: Path) -> None:
    check_same_bits(tmp_path, LARGE, {"mpi-host-3": MPI_WAYS["mpi-host-3"]})


@pytest.mark.deep
@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_configuration_on_any_number_of_ranks(tmp_path: Path, configuration: str) -> None:
    check_same_bits(tmp_path, configuration, MPI_WAYS | THREADS_WAYS)


@pytest.mark.deep
@pytest.mark.usefixtures("mnist")
def test_interrupted_on_2_ranks_and_resumed_on_3(tmp_path: Path) -> None:
    configuration = CONFIGURATIONS[LARGE]
    train = ("train", *configuration, *LENGTH)
    assert run_ddpgd(2, *train, "--run-dir", "whole", cwd=tmp_path).returncode == 0
    cut = run_ddpgd(2, *train, "--run-dir", "cut", "--max-time", "0.1", cwd=tmp_path)
    assert cut.returncode == 75, cut.stderr
    assert run_ddpgd(3, *train, "--run-dir", "cut", "--resume", cwd=tmp_path).returncode == 0
    assert summary(tmp_path / "cut")["params_sha256"] == summary(tmp_path / "whole")["params_sha256"]
    assert records(tmp_path / "cut") == records(tmp_path / "whole")


def test_compare_names_step_and_layer(tmp_path: Path) -> None:
    train = (
        "train",
        "--data",
        "synthetic",
        "--hidden",
        "16",
        "--steps",
        "40",
        "--log-every",
        "10",
        "--evaluate-every",
        "40",
        "--quiet",
    )
    for name, more in (("one", ()), ("same", ()), ("other", ("--lr", "0.05"))):
        assert call_ddpgd(*train, *more, "--run-dir", tmp_path / name).returncode == 0
    assert (
        "equal params, bit for bit, at all 5 logged steps"
        in call_ddpgd("compare", tmp_path / "one", tmp_path / "same").stdout
    )
    different = call_ddpgd("compare", tmp_path / "one", tmp_path / "other").stdout
    assert "params differ from logged step 1 on (equal at 0), first in dense1.weight" in different
