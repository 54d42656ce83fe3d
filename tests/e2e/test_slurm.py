"""launch/slurm.sbatch in a Slurm of this machine, or of two hosts of a lab: preempted, out of time, cancelled; the scaling
script in an allocation; what the documents show.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PYTHON, ROOT, in_lab, summary
from documents import for_clusters

from patience import slowness

LAB = str(ROOT / "tools" / "slurm_lab.sh")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons want root"),
    pytest.mark.skipif(not shutil.which("slurmctld", path="/usr/sbin:/usr/bin"), reason="apt install slurm-wlm munge"),
    pytest.mark.skipif(not (ROOT / ".venv").exists(), reason="launchers want the environment of scripts/setup.sh"),
]

FUNCTIONS = """
cd "$REPOSITORY"
nodes="--nodes 1" hidden=256,256
work="--data synthetic --steps 2500 --accumulate 2 --micro-batch 64 --checkpoint-every 1000000"
submit() { RUN=$OUT/$1 sbatch --parsable $nodes --output "$OUT/$1.out" launch/slurm.sbatch --hidden $hidden $work; }
state() { squeue --noheader --format %T --job "$1"; }
under_way() { until [[ -s $OUT/$1/metrics.jsonl ]]; do sleep 0.1; done; }
queued() { until [[ $(state "$1") == PENDING ]]; do sleep 0.1; done; }
gone() { while [[ -n $(state "$1") ]]; do sleep 0.2; done; }
now() { sleep 1; until scontrol update JobId="$1" StartTime=now; do sleep 1; done; }
"""


@pytest.fixture(autouse=True)
def folder_of_mpirun() -> None:
    """Leaves TMPDIR as it is, since preempted jobs do not come back with one of a test's own."""


def in_slurm(out: Path, script: str, num_nodes: int = 1) -> str:
    """Output of the script, in a Slurm of its own, of this machine or of hosts of a lab."""
    started = [LAB] if num_nodes == 1 else in_lab([LAB, "--nodes", "host0,host1"])
    environment = os.environ | {
        "REPOSITORY": str(ROOT),
        "OUT": str(out),
        "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}",
    }
    command = ["timeout", f"{170 * slowness():.0f}", *started, "bash", "-euc", FUNCTIONS + script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.deep
@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("num_nodes", [1, 2])
def test_a_preempted_job_ends_as_one_that_was_not(num_nodes: int, tmp_path: Path) -> None:
    """It is stopped by an urgent job, and once more by a signal, as at the end of its time; its peer runs on one node."""
    script = f"""
        nodes="--nodes {num_nodes} --ntasks-per-node {2 // num_nodes}" hidden={"256,256" if num_nodes == 1 else "64"}
        job=$(submit stopped); under_way stopped
        sbatch --partition urgent --exclusive --nodes {num_nodes} --output /dev/null --wrap "sleep 1" >/dev/null
        queued "$job"; now "$job"
        records=$(wc -l <$OUT/stopped/metrics.jsonl)
        until (($(wc -l <$OUT/stopped/metrics.jsonl) > records)); do sleep 0.1; done
        scancel --batch --signal=USR1 "$job"
        queued "$job"; now "$job"; gone "$job"
        nodes="--nodes 1"
        plain=$(submit plain); gone "$plain"
    """
    in_slurm(tmp_path, script, num_nodes)
    stopped, plain = summary(tmp_path / "stopped"), summary(tmp_path / "plain")
    assert stopped["complete"]
    assert stopped["num_nodes"] == num_nodes
    assert stopped["params_sha256"] == plain["params_sha256"]
    said = (tmp_path / "stopped.out").read_text()
    assert "DUE TO PREEMPTION" in said
    # Open MPI carries no more words from ranks on several nodes once TERM came.
    assert said.count("the checkpoint is written") == (2 if num_nodes == 1 else 1)


def test_a_cancelled_job_leaves_a_checkpoint_and_is_not_queued_again(tmp_path: Path) -> None:
    script = 'job=$(submit cancelled); under_way cancelled; scancel "$job"; gone "$job"; squeue --noheader'
    assert in_slurm(tmp_path, script) == ""
    assert (tmp_path / "cancelled" / "checkpoints" / "latest").exists()
    assert not (tmp_path / "cancelled" / "summary.json").exists()


@pytest.mark.deep
@pytest.mark.usefixtures("lab")
def test_what_the_documents_show(tmp_path: Path) -> None:
    """With fewer nodes, ranks and steps; flags of sbatch win over those of the script."""
    shown = {
        "--epochs 20": "--data synthetic --hidden 16 --steps 5",
        "--nodes 4 --ntasks-per-node 8 --gpus-per-node 8": "--nodes 2 --ntasks-per-node 2",
        "--backend cupy": "--backend numpy",
        "salloc --ntasks 8 python": f"salloc --nodes 2 --ntasks 2 {' '.join(PYTHON)}",
        "--out scaling": "--out $OUT/scaling",
        "--ranks 1,2,4,8": "--ranks 1,2 --modes weak --repetitions 1 --seconds 0.05 -- --data synthetic --hidden 16",
    }
    several = """
        run=0
        sbatch() { ((++run)); gone "$(RUN=$OUT/$run command sbatch --parsable --output "$OUT/%j.out" "$@")"; }
    """
    in_slurm(tmp_path, several + for_clusters("sbatch", "salloc", instead=shown), num_nodes=2)
    runs = [summary(tmp_path / run) for run in ("1", "2")]
    assert [(run["world_size"], run["num_nodes"]) for run in runs] == [(2, 1), (4, 2)]
    assert "Slurm job on" in (tmp_path / "scaling" / "index.html").read_text()

    one = for_clusters("tools/slurm_lab.sh", instead={"--steps 100": "--hidden 16 --steps 5"})
    environment = os.environ | {"RUN": str(tmp_path / "3"), "SBATCH_OUTPUT": str(tmp_path / "out")}
    done = subprocess.run(["bash", "-euc", f"cd {ROOT}\n{one}"], env=environment, check=False)
    assert done.returncode == 0
    assert summary(tmp_path / "3")["complete"]


def test_a_command_is_wanted() -> None:
    done = subprocess.run([LAB], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "type a command, as in:" in done.stderr
