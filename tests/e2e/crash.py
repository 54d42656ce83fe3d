"""`ddpgd` with a fault planted: rank RANK raises in the middle of step 5. Usage: crash.py RANK ARGUMENTS."""

import sys

from ddpgd.cli import main
from ddpgd.training.step import Step

rank = int(sys.argv[1])
run = Step.run


def faulty(self: Step, step: int, count: int, stop: bool, observe: bool) -> object:
    if step == 5 and self.exchange.transport.rank == rank:
        raise RuntimeError("planted fault")
    return run(self, step, count, stop, observe)


Step.run = faulty  # type: ignore[method-assign,assignment]
sys.exit(main.main(sys.argv[2:]))
