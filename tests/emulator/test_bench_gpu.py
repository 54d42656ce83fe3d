"""The benchmark of the CUDA backend and its check run through the emulator, which shows that they work, not how fast."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "tests" / "emulator" / "site"
BENCH = [sys.executable, "-m", "benchmarks.gpu.run"]
TINY = "--networks 784-16-10 --rows 64 --precisions bfloat16 --repetitions 1 --data synthetic --trial"


def run(command: list[str], path: Path = SITE, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, path))), **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Results of one tiny case: the JSON and the table."""
    folder = tmp_path_factory.mktemp("bench")
    parts = ["--parts", "steps,profile", "--libraries", "ddpgd,torch,jax"]
    done = run([*BENCH, *TINY.split(), *parts, "--out", str(folder)], DDPGD_EMULATOR_MULTIPROCESSORS="132")
    assert done.returncode == 0, done.stderr
    assert "0 of 8 targets met" in done.stdout
    return json.loads((folder / "gpu.json").read_text()), (folder / "gpu-table.md").read_text()


def test_every_contestant_of_ours_is_measured_and_learns(measured: tuple[dict[str, Any], str]) -> None:
    ((case,), found) = measured[0]["cases"], measured[0]
    for key in ("captured", "persistent", "uncaptured", "captured-4", "captured-16"):
        row = case["contestants"][key]
        assert row["us"]["median"] > 0
        assert row["us"].keys() == {"n", "median", "min", "max"}
        assert row["us"]["n"] == 1
        assert row["last_loss"] < row["first_loss"]
    assert case["work"]["flop"] == 2 * 64 * (2 * 784 * 16 + 3 * 16 * 10)
    assert case["work"]["launches"] == 4
    assert set(case["limits_s"]) >= {"launches", "bytes"}
    assert found["problems"] == []


def test_others_take_part_or_say_why_not(measured: tuple[dict[str, Any], str]) -> None:
    found, table = measured
    contestants = found["cases"][0]["contestants"]
    for library, key in (("torch", "torch-eager"), ("jax", "jax")):
        if library in found["absent"]:
            assert f"{library} took no part: " in table
        else:
            assert contestants[key]["last_loss"] < contestants[key]["first_loss"]


def test_the_report_tells_all(measured: tuple[dict[str, Any], str]) -> None:
    found, table = measured
    assert f"- command: `{found['command']}`" in table
    assert "Emulated device" in table
    assert "| 64 | bfloat16 | " in table
    assert "**784-16-10, 64 rows, bfloat16**: " in table
    for op in (
        "gather_normalise",
        "dense_forward",
        "dense_backward_params",
        "cross_entropy",
        "decide",
        "update momentum",
    ):
        assert f"| {op} | " in table
    assert "has not learned" not in table


def test_what_a_budget_cuts_off_is_told(tmp_path: Path) -> None:
    cases = "--networks 784-16-10 --rows 64,32 --precisions float32 --seconds 0.001"
    command = [
        *BENCH,
        *TINY.split(),
        *cases.split(),
        "--parts",
        "steps",
        "--libraries",
        "ddpgd",
        "--out",
        str(tmp_path),
    ]
    assert run(command).returncode == 0
    assert "Not reached within 0.001 s: 784-16-10, 32 rows, float32." in (tmp_path / "gpu-table.md").read_text()


def test_whole_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, SITE))))
    from benchmarks.gpu.epoch import measure

    flags = "--backend cupy --hidden 8 --global-batch 16 --micro-batch 16 --steps 3"
    found = measure(["--data", "synthetic"], flags, num_runs=1)
    assert found["epoch_s"]["median"] > 0
    assert (found["num_reached"], found["reached_s"]) == (0, None)


def test_a_process_that_ends_costs_its_own_contestants_alone(tmp_path: Path) -> None:
    from benchmarks.gpu.cases import Case
    from benchmarks.gpu.runs import measure, processes

    workers = processes(["ddpgd", "jax"], {"ddpgd": "false", "jax": "false"}, tmp_path)
    found = measure(Case((784, 16, 10), 64, "float32"), workers, repetitions=2, make_s=10)
    assert {key: row["error"] for key, row in found["contestants"].items()} == {
        "captured": "its process ended with code 1",
        **dict.fromkeys(("persistent", "uncaptured", "apart", "captured-4", "captured-16"), "its process ended"),
        "jax": "its process ended with code 1",
    }


def test_no_cupy_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')")
    done = run([*BENCH, *TINY.split(), "--libraries", "ddpgd", "--out", str(tmp_path)], path=tmp_path)
    assert done.returncode == 2
    assert "ddpgd computes on no GPU here: " in done.stderr.splitlines()[-1]


def test_the_check_without_a_gpu_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = run([str(ROOT / "scripts" / "gpu_check.sh")], PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu_check.sh: no GPU: nvidia-smi lists none, so there is nothing to check\n"
