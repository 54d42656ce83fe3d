"""launch/slurm.sbatch in a Slurm of this machine: preempted, out of time, cancelled; the scaling script in an allocation."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PYTHON, ROOT, summary

LAB = str(ROOT / "scripts" / "slurm_lab.sh")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons want root"),
    pytest.mark.skipif(not shutil.which("slurmctld", path="/usr/sbin:/usr/bin"), reason="apt install slurm-wlm munge"),
    pytest.mark.skipif(not (ROOT / ".venv").exists(), reason="launchers want the environment of scripts/setup.sh"),
]

FUNCTIONS = """
cd "$REPOSITORY"
work="--data synthetic --hidden 256,256 --steps 5000 --accumulate 2 --micro-batch 64 --checkpoint-every 1000000"
submit() { RUN=$OUT/$1 sbatch --parsable --output "$OUT/$1.out" launch/slurm.sbatch $work; }
state() { squeue --noheader --format %T --job "$1"; }
under_way() { until [[ -s $OUT/$1/metrics.jsonl ]]; do sleep 0.1; done; }
queued() { until [[ $(state "$1") == PENDING ]]; do sleep 0.1; done; }
gone() { while [[ -n $(state "$1") ]]; do sleep 0.2; done; }
now() { sleep 1; until scontrol update JobId="$1" StartTime=now; do sleep 1; done; }
"""


def in_slurm(out: Path, script: str) -> str:
    """What the script printed, in a Slurm of its own."""
    environment = os.environ | {
        "REPOSITORY": str(ROOT),
        "OUT": str(out),
        "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}",
    }
    command = ["timeout", "170", LAB, "bash", "-euc", FUNCTIONS + script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_preempted_job_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """It is stopped by an urgent job, and once more by a signal, as at the end of its time."""
    script = """
        job=$(submit stopped); under_way stopped
        sbatch --partition urgent --exclusive --output /dev/null --wrap "sleep 1" >/dev/null
        queued "$job"; now "$job"
        records=$(wc -l <$OUT/stopped/metrics.jsonl)
        until (($(wc -l <$OUT/stopped/metrics.jsonl) > records)); do sleep 0.1; done
        scancel --batch --signal=USR1 "$job"
        queued "$job"; now "$job"; gone "$job"
        plain=$(submit plain); gone "$plain"
    """
    in_slurm(tmp_path, script)
    stopped, plain = summary(tmp_path / "stopped"), summary(tmp_path / "plain")
    assert stopped["complete"]
    assert stopped["params_sha256"] == plain["params_sha256"]
    said = (tmp_path / "stopped.out").read_text()
    assert "DUE TO PREEMPTION" in said
    assert said.count("the checkpoint is written") == 2


def test_a_cancelled_job_leaves_a_checkpoint_and_is_not_queued_again(tmp_path: Path) -> None:
    script = 'job=$(submit cancelled); under_way cancelled; scancel "$job"; gone "$job"; squeue --noheader'
    assert in_slurm(tmp_path, script) == ""
    assert (tmp_path / "cancelled" / "checkpoints" / "latest").exists()
    assert not (tmp_path / "cancelled" / "summary.json").exists()


def test_flags_of_sbatch_win_over_those_of_the_script(tmp_path: Path) -> None:
    script = """
        export RUN=$OUT/one
        sbatch --wait --ntasks-per-node 1 --output "$OUT/out" launch/slurm.sbatch --data synthetic --hidden 16 --steps 5
    """
    in_slurm(tmp_path, script)
    assert summary(tmp_path / "one")["world_size"] == 1


def test_scaling_is_measured_in_an_allocation(tmp_path: Path) -> None:
    arguments = "--ranks 1,2 --modes weak --repetitions 1 --seconds 0.05 -- --data synthetic --hidden 16"
    python = " ".join(PYTHON)
    in_slurm(tmp_path, f"salloc --ntasks 2 {python} scripts/scaling_efficiency.py --out $OUT/scaling {arguments}")
    assert "Slurm job on" in (tmp_path / "scaling" / "index.html").read_text()


def test_a_command_is_wanted() -> None:
    done = subprocess.run([LAB], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "type a command, as in:" in done.stderr
