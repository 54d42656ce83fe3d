"""Layouts of ranks over MPI: tensor and pipeline parallel runs have the bits of one rank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mpi4py import MPI

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("few_digits")]

Train = Callable[..., dict[str, Any]]
SHAPES = [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (4, 1), (2, 2)]
over_layouts = pytest.mark.parametrize(
    ("tensor", "pipeline"), [shape for shape in SHAPES if MPI.COMM_WORLD.size % (shape[0] * shape[1]) == 0]
)
GIVEN: dict[str, Any] = {
    "hidden": (13, 9),
    "shards": 4,
    "clip_norm": 0.2,
    "checkpoint_every": 4,
    "schedule": "constant",
}


@over_layouts
@pytest.mark.parametrize("pipeline_schedule", ["1f1b", "gpipe"])
@pytest.mark.parametrize(("optimizer", "shard_optimizer"), [("momentum", "off"), ("adam", "on"), ("muon", "on")])
def test_runs_have_the_bits_of_one_rank(
    folder: Path,
    train: Train,
    tensor: int,
    pipeline: int,
    pipeline_schedule: str,
    optimizer: str,
    shard_optimizer: str,
) -> None:
    layout = {"tensor": tensor, "pipeline": pipeline, "pipeline_schedule": pipeline_schedule}
    found = train(folder / "run", **GIVEN, **layout, optimizer=optimizer, shard_optimizer=shard_optimizer)
    alone = train(folder / "one", **GIVEN, optimizer=optimizer, alone=True)
    assert found["params_sha256"] == alone["params_sha256"]


@over_layouts
def test_a_run_goes_on_in_another_layout(folder: Path, train: Train, tensor: int, pipeline: int) -> None:
    train(folder / "run", **GIVEN | {"steps": 4})
    found = train(folder / "run", resume="", hidden=GIVEN["hidden"], steps=9, tensor=tensor, pipeline=pipeline)
    alone = train(folder / "one", **GIVEN, alone=True)
    assert found["params_sha256"] == alone["params_sha256"]
