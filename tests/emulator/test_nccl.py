"""Ranks that run ahead of their hosts over the emulated NCCL: equal bits, one look for many steps, one end for all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddpgd.comm.levels import RANKS_PER_NODE
from runs import Record, records

from .test_launched import MPIRUN, SITE

TESTS = Path(__file__).parents[1]

CONFIGURATIONS: dict[str, Record] = {
    "ragged": {},
    "float16 wire": {"wire": "float16", "error_feedback": True},
    "accumulate": {"global_batch": 64, "micro_batch": 4, "optimizer": "adam", "lr": 0.01, "clip_norm": 0.5},
    "muon, sharded": {"optimizer": "muon", "lr": 0.01, "hidden": [12, 9], "shard_optimizer": "on"},
    "ranks without micro-batches": {"micro_batch": 10},
    "float16": {"precision": "float16"},
    "powersgd": {"wire": "powersgd"},
    "local": {"sync": "local", "local_steps": 3, "local_after": 9},
}
HALTING: Record = {"lr": 1e30, "optimizer": "sgd", "schedule": "constant", "steps": 9, "log_every": 99}
HALTS: dict[str, Record] = {
    "raise": HALTING,
    "skip": HALTING | {"non_finite": "skip"},
    "skip with residuals": HALTING | {"non_finite": "skip", "wire": "bfloat16", "error_feedback": True},
}


def run(num_ranks: int, folder: Path, cases: dict[str, Record]) -> dict[str, list[dict[str, Any]]]:
    """The reports of all ranks by case."""
    found: dict[str, list[dict[str, Any]]] = json.loads(
        printed(num_ranks, "nccl_worker", str(folder), json.dumps(cases))
    )
    return found


def printed(num_ranks: int, worker: str, *arguments: str) -> str:
    """The standard output of a module of this folder on so many ranks."""
    path = os.pathsep.join([str(SITE), str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "DDPGD_EMULATOR_DEVICES": str(num_ranks)}
    command = [*MPIRUN, "-n", str(num_ranks), sys.executable, "-m", f"emulator.{worker}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def checkpoints(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes()[-4096:] for path in (folder / "checkpoints").glob("step-*")}


def both(num_ranks: int, folder: Path, cases: dict[str, Record]) -> dict[str, tuple[Any, Any]]:
    """The reports of each case with a look after every step, and with as many steps to a look as the ranks agree on."""
    doubled = {f"{name}, {ahead}": given | {"ahead": ahead} for name, given in cases.items() for ahead in (0, 1)}
    reports = run(num_ranks, folder, doubled)
    for name in cases:
        single, ahead = (folder / f"{name}, {number}" for number in (0, 1))
        told = [rank["ended"].get("line") for number in (0, 1) for rank in reports[f"{name}, {number}"]]
        assert len(set(told)) == 1, (name, told)
        assert records(ahead) == records(single), name
        assert checkpoints(ahead) == checkpoints(single)
    return {name: (reports[f"{name}, 0"], reports[f"{name}, 1"]) for name in cases}


@pytest.mark.parametrize(
    ("num_ranks", "names"),
    [
        (2, list(CONFIGURATIONS)),
        (3, list(CONFIGURATIONS)[:2]),
        pytest.param(4, list(CONFIGURATIONS)[:2], marks=pytest.mark.deep),
    ],
)
def test_steps_without_the_host_have_the_bits_of_single_ones(num_ranks: int, names: list[str], tmp_path: Path) -> None:
    for name, (single, ahead) in both(num_ranks, tmp_path, {name: CONFIGURATIONS[name] for name in names}).items():
        assert len({rank["ended"]["params_sha256"] for rank in (*single, *ahead)}) == 1, name
        assert single[0]["ended"]["wire_bytes_per_step"] == ahead[0]["ended"]["wire_bytes_per_step"] > 0
        if name == "ragged":
            the_host_looks_once_for_many_steps([rank["looks"] for rank in ahead])


def the_host_looks_once_for_many_steps(looks: list[Any]) -> None:
    """All ranks run the same numbers of steps, though each has another time of a step; no call is made for each step."""
    assert all([look[:2] for look in own] == [look[:2] for look in looks[0]] for own in looks)
    assert sum(look[0] for look in looks[0]) == 30
    assert max(look[0] for look in looks[0]) >= 9
    for num_steps, observe, calls in (look for own in looks for look in own if look[0] > 1):
        assert not observe
        assert calls["to_host"] == 1, num_steps
        assert (
            calls.get("upload", 0) <= 4
        )  # the requests; at the start of an epoch its order, learning rates and cursor
        assert calls.keys() <= {"to_host", "upload"}


@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.deep), 4])
def test_groups_have_communicators_of_their_own(num_ranks: int) -> None:
    assert printed(num_ranks, "split_worker") == f"{num_ranks}\n"


@pytest.mark.parametrize("nodes", [pytest.param("2,2", marks=pytest.mark.deep), "1,3", "2,1"])
def test_two_levels_have_the_canonical_sum_by_nccl_and_by_nccl_inside_nodes_alone(nodes: str) -> None:
    num_ranks = sum(map(int, nodes.split(",")))
    assert printed(num_ranks, "two_level_worker", nodes) == f"{num_ranks}\n"


def test_whole_steps_of_two_levels_are_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANKS_PER_NODE, "2")
    found = both(4, tmp_path, {"two-level": {"exchange": "two-level"}, "flat": {"exchange": "flat"}})
    assert len({rank["ended"]["params_sha256"] for forms in found.values() for ranks in forms for rank in ranks}) == 1
    for single, ahead in found.values():
        between = single[0]["ended"]["between_bytes_per_step"]
        assert between == ahead[0]["ended"]["between_bytes_per_step"]
        assert (between > 0) == (single[0]["ended"]["exchange"] == "two-level")
    assert max(look[0] for look in found["two-level"][1][0]["looks"]) >= 9


@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.deep)])
def test_a_stop_of_any_rank_ends_all_at_the_same_look(num_ranks: int, tmp_path: Path) -> None:
    cases: dict[str, Record] = {"whole": {}}
    for rank in range(num_ranks):
        cases[f"stopped {rank}"] = {"stop_on": [rank, 3 + rank]}
        cases[f"resumed {rank}"] = {"resume": str(tmp_path / f"stopped {rank}")}
    reports = run(num_ranks, tmp_path, cases)
    whole = reports["whole"][0]["ended"]["params_sha256"]
    for rank in range(num_ranks):
        stopped = reports[f"stopped {rank}"]
        assert len({peer["ended"]["line"] for peer in stopped}) == 1
        assert "enough; the checkpoint is written" in stopped[0]["ended"]["line"]
        assert [len(peer["looks"]) for peer in stopped] == [4 + rank] * num_ranks
        assert reports[f"resumed {rank}"][0]["ended"]["params_sha256"] == whole


def test_a_gradient_that_is_not_finite_halts_all_at_the_same_step(tmp_path: Path) -> None:
    for name, (single, ahead) in both(2, tmp_path, HALTS).items():
        told = [rank["ended"].get("line") or rank["ended"]["params_sha256"] for rank in (*single, *ahead)]
        assert len(set(told)) == 1, name
        assert ("error" in single[0]["ended"]) == (name == "raise")
        # What a step keeps back must not come from steps after a halt.
        if name != "raise":
            assert (max(look[0] for look in ahead[0]["looks"]) == 1) == (name == "skip with residuals")
