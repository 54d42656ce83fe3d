"""Calls the program with one row of arguments after the other on the ranks that mpirun started, and tells what each rank said.

mpirun -n 2 python wrong_input_worker.py ROWS.json FOUND.json        in the folder that the rows speak of
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from mpi4py import MPI

from ddpgd.cli.main import main


def snapshot() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def answers(rows: list[list[str]]) -> list[dict[str, object]]:
    """For each row: all ranks' exit codes and lines on stderr, and whether the folder is as it was."""
    world, before, found = MPI.COMM_WORLD, snapshot(), []
    for arguments in rows:
        world.Barrier()
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            code = main(arguments)
        codes, said = world.allgather(code), world.allgather(stderr.getvalue())
        found.append({"codes": codes, "stderr": "".join(said), "unchanged": snapshot() == before})
    return found


if __name__ == "__main__":
    answered = answers(json.loads(Path(sys.argv[1]).read_text()))
    if MPI.COMM_WORLD.rank == 0:
        Path(sys.argv[2]).write_text(json.dumps(answered))
