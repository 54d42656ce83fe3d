"""`ddpgd plan` under mpirun: the link between the ranks is measured. `benchmarks/cost_model` compares predictions with runs."""

import json
from pathlib import Path

import pytest
from conftest import call_module, run_ddpgd

SHORT = ("--hidden", "64", "--micro-batch", "32", "--accumulate", "1")


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_measure_their_link(num_ranks: int, tmp_path: Path) -> None:
    done = run_ddpgd(
        num_ranks, "plan", "--measure", "--seconds", "1", "--ranks", "2,64", *SHORT, "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fit"]["world_size"] == num_ranks
    assert found["fit"]["link"]["latency_s"] > 0
    assert found["fit"]["link"]["bytes_per_s"] > 1e6
    assert [one["world_size"] for one in found["predictions"]] == [2, 64]
    assert all(one["step_s"] > 0 for one in found["predictions"])


def test_wrong_input_of_one_line_on_all_ranks(tmp_path: Path) -> None:
    done = run_ddpgd(2, "plan", "--measure", "--link", "quick", cwd=tmp_path)
    assert done.returncode == 2
    assert "--link: 'quick' is not a rate" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--links", "wifi"), "'wifi' is none of shm, 1gbit, 100mbit"),
        (("--repetitions", "0"), "--repetitions: '0' is not a number above 0"),
    ],
)
def test_wrong_input_of_the_benchmark(arguments: tuple[str, ...], wanted: str) -> None:
    done = call_module("benchmarks.cost_model.run", *arguments)
    assert done.returncode == 2
    assert wanted in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.deep
def test_a_hundred_thousand_ranks_are_answered(tmp_path: Path) -> None:
    stated = ("--parameters", "25.6M", "--compute-time", "120ms", "--link", "100Gbit")
    done = run_ddpgd(0, "plan", *stated, "--ranks", "100k", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "100,000 " in done.stdout
