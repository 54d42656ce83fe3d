"""Law 1 on the real MNIST: the same configuration gives the same bits on any number of ranks."""

from pathlib import Path

import pytest
from conftest import run_ddpgd, summary

from runs import records

CONFIGURATIONS = {
    "784-128-10, global 512, micro 64": ("--hidden", "128", "--global-batch", "512", "--micro-batch", "64"),
    "784-512-512-10, global 500, micro 64, adam": (
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


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_any_number_of_ranks(tmp_path: Path, configuration: tuple[str, ...]) -> None:
    ways = {f"mpi-host-{ranks}": (ranks, ()) for ranks in (1, 2, 3, 4)} | {"alone": (0, ())}
    ways |= {f"threads-{ranks}": (0, ("--transport", "threads", "--ranks", str(ranks))) for ranks in (3, 7)}
    for way, (ranks, transport) in ways.items():
        done = run_ddpgd(ranks, "train", *configuration, *LENGTH, *transport, "--run-dir", way, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    hashes = {way: summary(tmp_path / way)["params_sha256"] for way in ways}
    assert len(set(hashes.values())) == 1, hashes
    for way in ways:
        assert records(tmp_path / way) == records(tmp_path / "alone"), way


@pytest.mark.usefixtures("mnist")
def test_interrupted_on_2_ranks_and_resumed_on_3(tmp_path: Path) -> None:
    configuration = CONFIGURATIONS["784-512-512-10, global 500, micro 64, adam"]
    train = ("train", *configuration, *LENGTH)
    assert run_ddpgd(2, *train, "--run-dir", "whole", cwd=tmp_path).returncode == 0
    cut = run_ddpgd(2, *train, "--run-dir", "cut", "--max-time", "0.5", cwd=tmp_path)
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
        assert run_ddpgd(0, *train, *more, "--run-dir", name, cwd=tmp_path).returncode == 0
    assert (
        "equal params, bit for bit, at all 4 logged steps"
        in run_ddpgd(0, "compare", "one", "same", cwd=tmp_path).stdout
    )
    different = run_ddpgd(0, "compare", "one", "other", cwd=tmp_path).stdout
    assert "params differ from logged step 10 on (equal at 0), first in dense1.weight" in different
