"""Whole runs of `ddpgd train` on a GPU, for tests that compare them."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ddpgd.kernels.cuda.sources import PRECISIONS

RUN_S = 120
CHECKPOINT = 6
NETWORKS = {
    "small": {"hidden": "16", "global_batch": "90", "micro_batch": "16", "steps": "12"},
    "large": {"hidden": "512,512", "global_batch": "1000", "micro_batch": "128", "optimizer": "adam", "lr": "0.001"}
    | {"steps": "60"},
    "library": {"hidden": "512,512", "global_batch": "4096", "micro_batch": "1024", "steps": "20"},
}
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
