"""Federated runs over mpirun: killed and gone on with on other numbers of ranks, they equal the run that was not."""

import subprocess
import time
from pathlib import Path

from conftest import DDPGD, run_ddpgd, summary, under_mpirun
from processes import kill

from runs import records

TRAIN = (
    *("train", "--data", "synthetic", "--hidden", "16", "--sync", "federated", "--clients", "30", "--rounds", "60"),
    *("--client-fraction", "0.2", "--local-epochs", "1", "--client-batch", "100", "--partition", "dirichlet:0.3"),
    *("--server-optimizer", "adam", "--outer-lr", "0.01", "--drop", "0.1", "--secure-aggregation", "--seed", "3"),
    *("--log-every", "1", "--evaluate-every", "20", "--checkpoint-every", "4", "--quiet", "--run-dir", "run"),
)


def test_kill_9_and_other_numbers_of_ranks(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    done = run_ddpgd(0, *TRAIN, cwd=tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    folder, resume = tmp_path / "killed", []
    for num_ranks, step in ((2, 6), (3, 20)):
        process = subprocess.Popen(
            under_mpirun(num_ranks, [*DDPGD, *TRAIN, *resume]),
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        path = folder / "run" / "metrics.jsonl"
        while not (path.exists() and any(record["step"] >= step for record in records(folder / "run"))):
            assert process.poll() is None, "ended too soon"
            time.sleep(0.005)
        kill(process)
        resume = ["--resume"]
    done = run_ddpgd(4, *TRAIN, "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    own, whole = (summary(tmp_path / name / "run") for name in ("killed", "whole"))
    assert own["params_sha256"] == whole["params_sha256"]
    assert own["client_accuracy_worst_decile"] == whole["client_accuracy_worst_decile"]
    assert records(folder / "run") == records(tmp_path / "whole" / "run")
    assert own["world_size"] == 4
