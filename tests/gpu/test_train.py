"""Whole runs on a GPU: near the NumPy backend, and the same bits for ranks that share the GPU and after a resume."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from .whole_runs import (
    CHECKPOINT,
    RUN_S,
    Runs,
    losses,
    options_of,
    over_networks,
    over_precisions,
    run,
    summary,
    train_command,
)

MPIRUN = shlex.split(os.environ.get("DDPGD_MPIRUN", "mpirun --oversubscribe"))
TOLERANCES = {"float32": (1e-5, 1e-3), "tf32": (5e-3, 0.1), "float16": (5e-3, 0.1), "bfloat16": (1e-2, 0.1)}
"""Of mean training losses, relative: the first, over three steps, and all; runs that begin alike part with time."""
TOLERANCES_OF_ACCURACY = {"float32": 0.005, "tf32": 0.03, "float16": 0.03, "bfloat16": 0.03}


@over_precisions
@over_networks
def test_trains_as_numpy_does(runs: Runs, network: str, precision: str) -> None:
    got, wanted = losses(runs.gpu(network, precision)), losses(runs.cpu(network))
    at_first, in_all = TOLERANCES[precision]
    assert len(got) == len(wanted) >= 3
    assert got[0] == pytest.approx(wanted[0], rel=at_first)
    assert got == pytest.approx(wanted, rel=in_all)
    accuracies = (summary(folder)["test_accuracy"] for folder in (runs.gpu(network, precision), runs.cpu(network)))
    assert next(accuracies) == pytest.approx(next(accuracies), abs=TOLERANCES_OF_ACCURACY[precision])


@over_precisions
@over_networks
def test_ranks_that_share_a_gpu_train_the_same_bits(tmp_path: Path, runs: Runs, network: str, precision: str) -> None:
    if shutil.which(MPIRUN[0]) is None:
        pytest.skip(f"{MPIRUN[0]} is not on PATH")
    options = options_of(network, "cupy", precision)
    commands = {
        f"mpi-{ranks}": [*MPIRUN, "-n", str(ranks), *train_command(tmp_path / f"mpi-{ranks}", **options), "--share-gpu"]
        for ranks in (2, 3, 4)
    }
    commands["threads-3"] = train_command(tmp_path / "threads-3", **options, transport="threads", ranks="3")
    said = {way: tmp_path / f"{way}.log" for way in commands}
    # All at once: they start in the time of one, and get into each other's way on the GPU as ranks may.
    started = {}
    for way, command in commands.items():
        with said[way].open("w") as log:
            started[way] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    for way, process in started.items():
        assert process.wait(RUN_S) == 0, said[way].read_text()
    hashes = {way: summary(tmp_path / way)["params_sha256"] for way in commands}
    assert set(hashes.values()) == {summary(runs.gpu(network, precision))["params_sha256"]}, hashes


@over_precisions
@over_networks
def test_resumed_is_as_never_stopped(tmp_path: Path, runs: Runs, network: str, precision: str) -> None:
    whole = runs.gpu(network, precision)
    checkpoint = whole / "checkpoints" / f"step-{CHECKPOINT:08}.safetensors"
    run(train_command(tmp_path / "resumed", resume=str(checkpoint), backend="cupy"))
    assert summary(tmp_path / "resumed")["params_sha256"] == summary(whole)["params_sha256"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_clients_side_by_side_train_as_one_by_one(tmp_path: Path, precision: str) -> None:
    options = {"data": "synthetic", "hidden": "200,200", "backend": "cupy", "precision": precision}
    options |= {"sync": "federated", "clients": "20", "client_fraction": "0.4", "local_epochs": "2", "rounds": "6"}
    ways = {
        "eight side by side": {},
        "two side by side": {"transport": "threads", "ranks": "4"},
        "one by one": {"replay": "persistent"},
    }
    for way, given in ways.items():
        run(train_command(tmp_path / way, **options, **given))
    hashes = {way: summary(tmp_path / way)["params_sha256"] for way in ways}
    assert len(set(hashes.values())) == 1, hashes
