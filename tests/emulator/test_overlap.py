"""Buckets that travel beside the backward pass over the emulated NCCL have the bits, and the bytes, of one sum."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from ddpgd.comm.buckets import Layer, all_cuts
from ddpgd.comm.wires import WIRES, Load
from ddpgd.model.layers import dense_layers, layer_starts, network_layout
from runs import SMALL_SHAPE, Record, records

from .test_nccl import printed, the_host_looks_once_for_many_steps

FEW: Record = {"steps": 8, "log_every": 5, "evaluate_every": 6}
CASES: dict[str, Record] = {
    "two": {"hidden": [40]},
    "four": FEW | {"hidden": [40, 40, 40]},
    "accumulate": FEW
    | {"hidden": [40, 40], "global_batch": 64, "micro_batch": 4, "optimizer": "adam", "clip_norm": 0.5},
    "ranks without micro-batches": FEW | {"hidden": [40], "micro_batch": 10},
    "float16": FEW | {"hidden": [40], "precision": "float16"},
    "observed": {"hidden": [40], "log_every": 1, "steps": 5},
}


def run(num_ranks: int, folder: Path, cases: dict[str, Record]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(
        printed(num_ranks, "nccl_worker", str(folder), json.dumps(cases))
    )
    return found


def predicted(hidden: list[int], num_micro_batches: int, num_ranks: int) -> int:
    """The bytes that the busiest rank sends in a step whose gradient is cut at every layer."""
    layers = dense_layers((prod(SMALL_SHAPE), *hidden, 10), "relu")
    size = network_layout(layers).size
    cuts = all_cuts([Layer(start, 0.0) for start in layer_starts(layers)], size)
    sums = WIRES["float32"].traffic(Load(size, num_micro_batches, num_ranks, cuts=cuts))
    return max(sum(own) for own in zip(*(one.num_bytes for one in sums), strict=True))


@pytest.mark.parametrize(
    ("num_ranks", "names"),
    [
        (2, list(CASES)),
        pytest.param(3, ["two", "ranks without micro-batches"], marks=pytest.mark.deep),
        pytest.param(4, list(CASES)[1:3], marks=pytest.mark.deep),
    ],
)
def test_buckets_beside_the_backward_pass_have_the_bits_of_one_sum(
    num_ranks: int, names: list[str], tmp_path: Path
) -> None:
    forms = {f"{name}, {form}": CASES[name] | {"overlap": form} for name in names for form in ("on", "off")}
    reports = run(num_ranks, tmp_path, forms)
    for name in names:
        on, off = ([rank["ended"] for rank in reports[f"{name}, {form}"]] for form in ("on", "off"))
        assert not [rank["line"] for rank in (*on, *off) if "line" in rank]
        assert {rank["num_buckets"] for rank in on} == {len(CASES[name]["hidden"]) + 1}
        assert {rank["num_buckets"] for rank in off} == {1}
        assert len({rank["params_sha256"] for rank in (*on, *off)}) == 1, name
        assert records(tmp_path / f"{name}, on") == records(tmp_path / f"{name}, off"), name
    if "two" in names:
        the_host_looks_once_for_many_steps([rank["looks"] for rank in reports["two, on"]])


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_the_bytes_of_buckets_are_those_that_the_cost_model_counts(num_ranks: int, tmp_path: Path) -> None:
    case = {"hidden": [40, 40, 40], "global_batch": 12, "micro_batch": 3, "overlap": "on", "steps": 6}
    (ranks,) = run(num_ranks, tmp_path, {"whole": case}).values()
    assert {rank["ended"]["wire_bytes_per_step"] for rank in ranks} == {predicted([40, 40, 40], 4, num_ranks)}
