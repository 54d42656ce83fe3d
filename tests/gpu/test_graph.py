"""Steps captured as CUDA graphs compute the bits of the same launches without a graph, and of the persistent kernel."""

from pathlib import Path

import pytest

import ddpgd

from .whole_runs import (
    Runs,
    options_of,
    over_networks,
    over_precisions,
    summary,
)


@over_precisions
@over_networks
def test_a_graph_computes_what_its_work_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs, network: str, precision: str
) -> None:
    monkeypatch.setattr("ddpgd.kernels.cuda.launcher.Launcher.capture", lambda _self, work: work)
    config = ddpgd.Config(**options_of(network, "cupy", precision), quiet=True, run_dir=str(tmp_path / "no graph"))
    assert ddpgd.train(config)["params_sha256"] == summary(runs.gpu(network, precision))["params_sha256"]


@over_precisions
@over_networks
def test_the_persistent_kernel_computes_what_graphs_do(
    tmp_path: Path, runs: Runs, network: str, precision: str
) -> None:
    options = options_of(network, "cupy", precision)
    config = ddpgd.Config(**options, replay="persistent", quiet=True, run_dir=str(tmp_path / "persistent"))
    assert ddpgd.train(config)["params_sha256"] == summary(runs.gpu(network, precision))["params_sha256"]
