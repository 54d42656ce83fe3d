"""Whole runs on a GPU: near the NumPy backend, and the same bits however they are cut, captured, shared or resumed."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ddpgd
from ddpgd.kernels.cuda.sources import PRECISIONS

MPIRUN = shlex.split(os.environ.get("DDPGD_MPIRUN", "mpirun --oversubscribe"))
RUN_S = 120
CHECKPOINT = 6
NETWORKS = {
    "small": {"hidden": "16", "global_batch": "90", "micro_batch": "16", "steps": "12"},
    "large": {"hidden": "512,512", "global_batch": "1000", "micro_batch": "128", "optimizer": "adam", "lr": "0.001"}
    | {"steps": "60"},
    "library": {"hidden": "512,512", "global_batch": "4096", "micro_batch": "1024", "steps": "20"},
}
TOLERANCES = {"float32": (1e-5, 1e-3), "tf32": (5e-3, 0.1), "float16": (5e-3, 0.1), "bfloat16": (1e-2, 0.1)}
"""Of mean training losses, relative: the first, over three steps, and all; runs that begin alike part with time."""
TOLERANCES_OF_ACCURACY = {"float32": 0.005, "tf32": 0.03, "float16": 0.03, "bfloat16": 0.03}

over_networks = pytest.mark.parametrize("network", NETWORKS)
over_precisions = pytest.mark.parametrize("precision", PRECISIONS)


def train_command(folder: Path, **options: str) -> list[str]:
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    return [sys.executable, "-m", "ddpgd", "train", *flags, "--quiet", "--run-dir", str(folder)]


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr


def summary(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return loaded


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train_loss_mean"] for line in lines if "train_loss_mean" in line]


class Runs:
    """Runs on drawn digits that several tests look at; each is run once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.gpu = cache(self._gpu)
        self.cpu = cache(self._cpu)

    def _gpu(self, network: str, precision: str) -> Path:
        """One rank on a GPU, with a checkpoint after CHECKPOINT steps."""
        return self._run(f"{network}-{precision}", network, "cupy", precision)

    def _cpu(self, network: str) -> Path:
        return self._run(f"{network}-cpu", network, "numpy", "float32")

    def _run(self, name: str, network: str, backend: str, precision: str) -> Path:
        options = options_of(network, backend, precision) | {"checkpoint_every": str(CHECKPOINT)}
        run(train_command(self._folder / name, **options))
        return self._folder / name


def options_of(network: str, backend: str, precision: str) -> dict[str, str]:
    common = {"data": "synthetic", "log_every": "4", "backend": backend, "precision": precision}
    return NETWORKS[network] | common


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


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


@over_precisions
@over_networks
def test_a_graph_computes_what_its_work_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs, network: str, precision: str
) -> None:
    monkeypatch.setattr("ddpgd.kernels.cuda.backend.launcher.Launcher.capture", lambda _self, work: work)
    config = ddpgd.Config(**options_of(network, "cupy", precision), quiet=True, run_dir=str(tmp_path / "no graph"))
    assert ddpgd.train(config)["params_sha256"] == summary(runs.gpu(network, precision))["params_sha256"]
