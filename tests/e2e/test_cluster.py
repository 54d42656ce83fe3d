"""launch/cluster.sh, across the hosts of a lab; what it refuses, anywhere."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import PYTHON, ROOT, in_lab, summary
from documents import for_clusters

from runs import records

CLUSTER = str(ROOT / "launch" / "cluster.sh")
SMALL = ("--data", "synthetic", "--hidden", "16", "--quiet")

needs_venv = pytest.mark.skipif(
    not (ROOT / ".venv").exists(),
    reason="hosts of a lab have no internet: scripts/setup.sh must have made .venv before",
)


def across(folder: Path, script: str) -> list[str]:
    """A script on the first host of a lab, from which no environment reaches the second, as with ssh."""
    bare = (
        'exec env --ignore-environment HOME=$HOME PATH=/usr/sbin:/usr/bin:/sbin:/bin $PRTE_MCA_plm_ssh_agent \\"\\$@\\"'
    )
    agent = f'echo "{bare}" >{folder}/agent; export PRTE_MCA_plm_ssh_agent="sh {folder}/agent"'
    return in_lab(["bash", "-euc", f"{agent}; cd {ROOT}\n{script}"])


@pytest.fixture
def hosts(tmp_path: Path, lab: None) -> Path:  # noqa: ARG001
    file = tmp_path / "hosts"
    file.write_text("# two machines\nhost0 slots=1\n\nhost1\n")
    return file


@needs_venv
def test_ranks_on_all_machines_of_the_host_file(hosts: Path, tmp_path: Path) -> None:
    command = across(tmp_path, f"{CLUSTER} {hosts} {' '.join(SMALL)} --steps 5 --run-dir {tmp_path}/run")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "run")["complete"]
    assert summary(tmp_path / "run")["world_size"] == 2
    assert summary(tmp_path / "run")["num_nodes"] == 2


@needs_venv
def test_other_machines_find_the_data_where_this_one_does(tmp_path: Path, lab: None) -> None:  # noqa: ARG001
    (tmp_path / "hosts").write_text("host1 slots=2\n")
    script = f"DDPGD_DATA=synthetic {CLUSTER} {tmp_path}/hosts --hidden 16 --steps 5 --run-dir {tmp_path}/run"
    done = subprocess.run(across(tmp_path, script), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "data: synthetic digits" in done.stdout


@pytest.mark.deep
@needs_venv
def test_what_the_documents_show(tmp_path: Path, lab: None) -> None:  # noqa: ARG001
    """Their host file has other names, and fewer ranks; runs are shorter."""
    example = (ROOT / "launch" / "hosts.example").read_text()
    (tmp_path / "hosts").write_text(
        example.replace("gpu-a", "host0").replace("gpu-b", "host1").replace("slots=4", "slots=2")
    )
    instead = {
        "-n 8": "-n 4",
        "launch/hosts.example": f"{tmp_path}/hosts",
        "--epochs 5": "--data synthetic --hidden 16 --steps 5",
        "ddpgd doctor": "ddpgd doctor --data synthetic",
        "python": " ".join(PYTHON),
        "--out scaling": f"--out {tmp_path}/scaling",
        "--ranks 1,4,8": "--ranks 1,2 --modes weak --repetitions 1 --seconds 0.05 -- --data synthetic --hidden 16",
    }
    script = for_clusters("launch/", "python scripts/scaling_efficiency.py", instead=instead)
    done = subprocess.run(
        across(tmp_path, f"export RUN={tmp_path}/run\n{script}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (summary(tmp_path / "run")["world_size"], summary(tmp_path / "run")["num_nodes"]) == (4, 2)
    assert "of one machine" in done.stdout
    assert "between machines" in done.stdout


@needs_venv
def test_a_signal_ends_with_a_checkpoint(hosts: Path, tmp_path: Path) -> None:
    """The launcher itself gets it: who stops the lab ends all at once."""
    run, pid = tmp_path / "run", tmp_path / "pid"
    script = f"echo $$ > {pid}; exec {CLUSTER} {hosts} {' '.join(SMALL)} --steps 1000000 --run-dir {run}"
    process = subprocess.Popen(across(tmp_path, script), stderr=subprocess.PIPE, text=True)
    while not ((run / "metrics.jsonl").exists() and records(run)):
        assert process.poll() is None, "ended too soon"
        time.sleep(0.01)
    os.kill(int(pid.read_text()), signal.SIGTERM)
    _, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert (run / "checkpoints" / "latest").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "is no host file; type one, as in:"),
        ("", "names no machine; type a line as: gpu-a slots=4"),
        ("gpu-a slots=none\n", '"gpu-a slots=none" is not a machine; type a line as: gpu-a slots=4'),
    ],
)
def test_a_host_file_that_is_none(text: str | None, line: str, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    if text is not None:
        hosts.write_text(text)
    done = subprocess.run([CLUSTER, str(hosts)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert line in done.stderr
