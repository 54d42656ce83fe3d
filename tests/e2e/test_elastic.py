"""Runs that go on without ranks that are killed: the same bits, exit code 0, no process left; and the end of what cannot."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import DDPGD, PYTHON, run_ddpgd, under_mpirun
from processes import ranks_of

from ddpgd.comm.launcher import node
from ddpgd.run.ending import read_ending
from runs import records

TRAIN = ("train", "--data", "synthetic", "--hidden", "16", "--quiet", "--steps", "60", "--checkpoint-every", "15")
TOLERANT = ("--with-ft", "ulfm")


def elastic(num_ranks: int, folder: Path, *more: str) -> "subprocess.Popen[str]":
    first, *others = under_mpirun(num_ranks, [*DDPGD, *TRAIN, "--elastic", "--run-dir", str(folder), *more])
    return subprocess.Popen([first, *TOLERANT, *others], stderr=subprocess.PIPE, text=True)


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run_ddpgd(0, *TRAIN, "--run-dir", folder, cwd=folder.parent).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("num_ranks", "deaths", "told"),
    [
        (2, "die@1:20", ["rank 1 is dead: rank 0 goes on from step 20"]),
        (3, "die@0:0", ["rank 0 is dead: 2 ranks go on from step 0"]),
        (4, "die@0:29,die@2:29", None),
        (
            4,
            "die@3:10,die@0:30,die@1:59",
            [
                "rank 3 is dead: 3 ranks go on from step 10",
                "rank 0 is dead: 2 ranks go on from step 30",
                "rank 1 is dead: rank 2 goes on from step 59",
            ],
        ),
    ],
)
def test_a_run_goes_on_to_the_same_bits(
    num_ranks: int, deaths: str, told: list[str] | None, tmp_path: Path, undisturbed: Path
) -> None:
    process = elastic(num_ranks, tmp_path / "run", "--inject", deaths)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert not list(ranks_of(process))
    found = summary(tmp_path / "run")
    assert found["params_sha256"] == summary(undisturbed)["params_sha256"]
    assert records(tmp_path / "run") == records(undisturbed)
    victims = [int(one.split("@")[1].split(":")[0]) for one in deaths.split(",")]
    assert sorted(found["lost_ranks"]) == sorted(victims)
    lines = [line.removeprefix("ddpgd: ") for line in said.splitlines() if " dead: " in line]
    assert told is None or lines == told


def test_damage_is_not_handed_on_by_a_recovery(tmp_path: Path, undisturbed: Path) -> None:
    """The ranks that are left compare what they go on from; the first of them tells, though rank 0 is dead."""
    for num_ranks, more, code in ((3, (), 4), (4, (), 4), (3, ("--heal",), 4), (4, ("--heal",), 0)):
        run = tmp_path / f"{num_ranks}{more}"
        process = elastic(num_ranks, run, "--inject", "flip@1:5,die@0:10", "--check-every", "30", *more)
        _, said = process.communicate()
        assert process.returncode == code, said
        who = "differ on ranks 1 and 2" if num_ranks == 3 else "of rank 1 differ from those of ranks 2 and 3"
        assert re.search(f"ddpgd: step 10, from which ranks go on: .* {who}, so memory", said), said
        if code:
            ending = read_ending(run)
            assert ending
            assert ending.exit_code == code
        else:
            assert summary(run)["params_sha256"] == summary(undisturbed)["params_sha256"]


def test_a_request_to_stop_is_kept(tmp_path: Path, undisturbed: Path) -> None:
    """Time runs on while ranks die; the run that is gone on with, by other ranks, ends alike."""
    process = elastic(3, tmp_path / "run", "--inject", "die@1:20", "--max-time", "0.001")
    _, said = process.communicate()
    assert process.returncode == 75, said
    done = run_ddpgd(2, "train", "--run-dir", tmp_path / "run", "--resume", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "run")["params_sha256"] == summary(undisturbed)["params_sha256"]


def test_the_library_goes_on_and_its_program_ends_with_its_own_code(tmp_path: Path, undisturbed: Path) -> None:
    program = f"""
import ddpgd, sys
config = ddpgd.Config(data="synthetic", hidden=(16,), quiet=True, steps=60, checkpoint_every=15, elastic=True,
                      inject="die@0:20", run_dir={str(tmp_path / "run")!r})
print(ddpgd.train(config)["params_sha256"])
raise SystemExit if len(sys.argv) == 1 else RuntimeError(sys.argv[1])
"""
    for more in ((), ("of its own",)):
        first, *others = under_mpirun(3, [*PYTHON, "-c", program, *more])
        done = subprocess.run([first, *TOLERANT, *others], capture_output=True, text=True, check=False)
        said = done.stdout.split()
        assert set(said) == {summary(undisturbed)["params_sha256"]}, done.stderr
        assert len(said) == 2 or more  # the first rank that fails ends the other
        assert ("RuntimeError: of its own" in done.stderr) == bool(more)
        assert (done.returncode != 0) == bool(more)
        (tmp_path / "run").rename(tmp_path / f"run{len(more)}")


def test_an_error_of_the_program_still_ends_all(tmp_path: Path) -> None:
    process = elastic(3, tmp_path / "run", "--inject", "raise@1:20")
    _, said = process.communicate()
    assert process.returncode == 1
    assert f"rank 1 of 3 on {node()} failed" in said
    assert "Injected" in said
    assert read_ending(tmp_path / "run") == (1, "rank 1 failed: Injected: --inject raise asked for this")


def test_a_launcher_that_ends_all_is_refused(tmp_path: Path) -> None:
    done = run_ddpgd(2, *TRAIN, "--elastic", "--run-dir", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "mpirun --with-ft ulfm" in done.stderr
    assert not (tmp_path / "run").exists()


LONELY = """
import os, signal, time
import numpy as np
from mpi4py import MPI
from ddpgd.comm.transports.mpi_elastic import MpiElastic
world = MpiElastic(MPI.COMM_WORLD.Dup())
peer, size = 1 - world.rank, 1_000_000
sent, received = np.ones(size, np.float32), np.zeros(size, np.float32)
sends, receives = [[], []], [[], []]
sends[peer], receives[peer] = [sent], [received]
ready = world.all_to_all_init(sends, receives)
world.barrier()
if world.rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    while not world._comm.Iprobe(peer):
        time.sleep(0.05)
except MPI.Exception:
    pass  # the death is known
for name, work in {
    "all_to_all": lambda: world.all_to_all(sends, receives),
    "all_to_all_init": ready,
    "all_gather": lambda: world.all_gather([[sent], [received]]),
    "all_gather_objects": lambda: world.all_gather_objects("mine"),
    "barrier": world.barrier,
}.items():
    try:
        work()
        print(name, "ended well")
    except MPI.Exception:
        print(name, "failed", flush=True)
os._exit(0)
"""


def test_no_collective_ends_well_without_a_dead_rank() -> None:
    """MPI_Waitall of Open MPI 5.0 does, if all messages are done with, failed ones included, and nobody asks for states."""
    first, *others = under_mpirun(2, [*PYTHON, "-c", LONELY])
    done = subprocess.run([first, *TOLERANT, *others], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        f"{name} failed" for name in ("all_to_all", "all_to_all_init", "all_gather", "all_gather_objects", "barrier")
    ], done.stderr
