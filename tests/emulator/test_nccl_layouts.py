"""Layouts over the emulated NCCL: one hash, stages without the host, and a circle of waits that is found."""

import json
from pathlib import Path

import pytest

from runs import Record, records

from .test_nccl import printed, run, the_host_looks_once_for_many_steps

BASE: Record = {"hidden": [13, 9], "shards": 4, "clip_norm": 0.2, "steps": 8, "log_every": 5, "evaluate_every": 6}
LAYOUTS: dict[int, dict[str, Record]] = {
    2: {
        "data": {},
        "tensor": {"tensor": 2},
        "1f1b": {"pipeline": 2},
        "gpipe": {"pipeline": 2, "pipeline_schedule": "gpipe"},
        "auto": {"pipeline": 2, "stages": [2, 1], "transport": "auto"},
    },
    3: {"1f1b": {"pipeline": 3}, "gpipe": {"pipeline": 3, "pipeline_schedule": "gpipe"}},
    4: {
        "data": {},
        "tensor and 1f1b": {"tensor": 2, "pipeline": 2},
        "tensor and gpipe": {"tensor": 2, "pipeline": 2, "pipeline_schedule": "gpipe"},
        "data and 1f1b": {"pipeline": 2},
    },
}


@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.deep), 4])
def test_layouts_over_nccl_have_one_hash(num_ranks: int, tmp_path: Path) -> None:
    cases = {name: BASE | given for name, given in LAYOUTS[num_ranks].items()}
    reports = run(num_ranks, tmp_path, cases)
    for name, ranks in reports.items():
        assert not [rank["ended"]["line"] for rank in ranks if "line" in rank["ended"]], name
        assert {rank["ended"]["transport"] for rank in ranks} == {"nccl"}, name
        assert without_noise(tmp_path / name) == without_noise(tmp_path / next(iter(cases))), name
    assert len({rank["ended"]["params_sha256"] for ranks in reports.values() for rank in ranks}) == 1


def without_noise(folder: Path) -> list[Record]:
    """Records but for noise scales, which are sums over parts of a gradient."""
    return [{name: value for name, value in record.items() if name != "noise_scale"} for record in records(folder)]


def test_stages_run_ahead_of_their_hosts(tmp_path: Path) -> None:
    (ranks,) = run(2, tmp_path, {"1f1b": {"pipeline": 2}}).values()
    assert len({rank["ended"]["params_sha256"] for rank in ranks}) == 1
    the_host_looks_once_for_many_steps([rank["looks"] for rank in ranks])


def test_a_trial_finds_that_messages_on_one_stream_wait_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPGD_EMULATOR_HANG_S", "2")
    case = BASE | {"pipeline": 2, "transport": "auto", "one_stream": True}
    (ranks,) = run(2, tmp_path, {"auto": case}).values()
    assert {rank["ended"]["transport"] for rank in ranks} == {"mpi-host"}
    assert "streams wait in a circle" in ranks[0]["ended"]["transport_choice"]


def test_stages_on_one_stream_are_told_that_they_wait_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPGD_EMULATOR_HANG_S", "2")
    case = BASE | {"pipeline": 2, "one_stream": True, "untried": True}
    with pytest.raises(AssertionError, match="streams wait in a circle"):
        printed(2, "nccl_worker", str(tmp_path), json.dumps({"one stream": case}))
