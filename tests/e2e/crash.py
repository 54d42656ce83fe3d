"""`ddpgd` with a fault planted: rank RANK raises in the middle of step 5. Usage: crash.py RANK ARGUMENTS."""

import sys
import threading

from ddpgd.cli import main
from ddpgd.training.step import Step

rank = int(sys.argv[1])
run = Step.run


def own_rank() -> int:
    """Returns the rank of this thread, where ranks are threads; else of this process."""
    name = threading.current_thread().name
    if name.startswith("rank "):
        return int(name.removeprefix("rank "))
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank


def faulty(self: Step, step: int, count: int, stop: bool, observe: bool) -> object:
    if step == 5 and own_rank() == rank:
        raise RuntimeError("planted fault")
    return run(self, step, count, stop, observe)


Step.run = faulty  # type: ignore[method-assign,assignment]
sys.exit(main.main(sys.argv[2:]))
