"""launch/local.sh and scripts/same_bits.sh with real ranks; with stand-ins: tests/unit/test_*_script*.py."""

import os
import platform
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import summary

from patience import slowness
from runs import records

ROOT = Path(__file__).parents[2]
LOCAL = str(ROOT / "launch" / "local.sh")
MPIRUN = str(ROOT / "launch" / "mpirun.sh")
SMALL = ("--data", "synthetic", "--hidden", "16", "--quiet")


def test_local_trains_on_as_many_ranks_as_asked(tmp_path: Path) -> None:
    command = [LOCAL, *SMALL, "--steps", "5", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | {"RANKS": "3"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "run")["complete"]
    assert summary(tmp_path / "run")["world_size"] == 3


@pytest.mark.parametrize("command", [[LOCAL, *SMALL, "--steps", "1"], [MPIRUN, "-n", "1", "true"]])
def test_what_killed_mpiruns_have_left_stops_no_launcher(command: list[str], tmp_path: Path) -> None:
    """Folders named by their process numbers, in which an mpirun with such a number does not start."""
    newest = int(Path("/proc/loadavg").read_text().split()[-1])
    for number in range(newest, newest + 5000):
        (tmp_path / f"ompi.{number}").mkdir()
        (tmp_path / f"ompi.{number}" / f"pmix.{platform.node()}.tool").touch()
    environment = os.environ | {"TMPDIR": str(tmp_path), "RUN": str(tmp_path / "run")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_local_passes_exit_code_2_on(tmp_path: Path) -> None:
    done = subprocess.run([LOCAL, *SMALL, "--lr", "0"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--lr 0.0: must be above 0" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_local_ends_with_a_checkpoint_from_which_run_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    command, environment = [LOCAL, *SMALL, "--steps", "1000000"], os.environ | {"RUN": str(run)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while not ((run / "metrics.jsonl").exists() and records(run)):
        assert process.poll() is None, "ended too soon"
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == 75, stderr
    first = int((run / "checkpoints" / "latest").resolve().stem.removeprefix("step-"))
    again = subprocess.run(
        [*command, "--max-time", "0.2"], env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 75, again.stderr
    assert int((run / "checkpoints" / "latest").resolve().stem.removeprefix("step-")) > first


def test_run_goes_on_without_latest_and_past_a_cut_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    environment = os.environ | {"RUN": f"{run}/", "RANKS": "1"}
    for steps in ("6", "8"):
        command = [LOCAL, *SMALL, "--steps", steps, "--checkpoint-every", "3"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300 * slowness(), check=False
        )
        assert done.returncode == 0, done.stderr
        assert records(run)[-1]["step"] == int(steps)
        (run / "checkpoints" / "latest").unlink()
        os.truncate(run / "checkpoints" / "step-00000006.safetensors", 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_local_tells_that_all_ranks_of_an_elastic_run_have_died(tmp_path: Path) -> None:
    """As its mpirun then ends with 0."""
    deaths = ("--elastic", "--inject", "die@0:20,die@1:20")
    command, environment = [LOCAL, *SMALL, "--steps", "200"], os.environ | {"RUN": str(tmp_path / "run"), "RANKS": "2"}
    done = subprocess.run([*command, *deaths], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"{tmp_path / 'run'} has no summary: all ranks have died" in done.stderr
    again = subprocess.run([*command, "--elastic"], env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr


def test_same_bits_proves_and_refuses(tmp_path: Path) -> None:
    script = str(ROOT / "scripts" / "same_bits.sh")
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    proof = subprocess.run(
        [script, "3", *SMALL, "--steps", "20"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert proof.returncode == 0, proof.stderr
    assert "same bits on 1..3 ranks" in proof.stdout
    wrong = subprocess.run([script, "many"], env=environment, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2


@pytest.mark.parametrize(
    ("command", "environment", "line"),
    [
        ("launch/mpirun.sh", {}, "type a command, as in:"),
        ("launch/mpirun.sh -n x true", {}, "type -n RANKS COMMAND, as in:"),
        ("launch/mpirun.sh -n 2", {}, "type -n RANKS COMMAND, as in:"),
        ("bash launch/slurm.sbatch", {}, "type sbatch launch/slurm.sbatch"),
        ("launch/local.sh --steps 1", {"DDPGD_CUDA": "foo"}, "type DDPGD_CUDA=12, 13 or none"),
        ("launch/local.sh --steps 1", {"DDPGD_MPI": "foo"}, "type DDPGD_MPI=wheel, or leave it out"),
    ],
)
def test_launchers_refuse_in_one_line(command: str, environment: dict[str, str], line: str) -> None:
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
