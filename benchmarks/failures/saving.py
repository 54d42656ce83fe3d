"""The time that checkpoints and recordings take of a run, part by part: a machine may be less even than what they take.

    mpirun -n 2 python -m benchmarks.failures.saving --hidden 512,512 --steps 400

Trains with `--checkpoint-every` and `--record`, and times what these do on rank 0: in its steps, and in the thread that
writes. With a core of its own, that thread takes no time of the steps; where all cores compute, it takes what it computes.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from mpi4py import MPI

from benchmarks.lib.program import make_parser
from ddpgd.cli.main import main as ddpgd
from ddpgd.run.snapshots import Snapshots
from ddpgd.scaling.arguments import positive
from ddpgd.scaling.conditions import commit
from ddpgd.training.flight_recorder import FlightRecorder
from ddpgd.training.step import Step


class Timed:
    """Calls of a method: the time that each takes, and what its thread computes, in ms."""

    def __init__(self, owner: type, name: str) -> None:
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []
        setattr(owner, name, self._of(getattr(owner, name)))

    def _of(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*arguments, **named)
            finally:
                self.wall_ms.append(1e3 * (time.perf_counter() - wall))
                self.cpu_ms.append(1e3 * (time.thread_time() - cpu))

        return timed


def told(values: list[float]) -> str:
    """Returns the median, and in brackets the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Prints the table on rank 0."""
    parser = make_parser(__doc__)
    parser.add_argument("--hidden", default="512,512")
    parser.add_argument("--steps", type=positive(int), default=400)
    parser.add_argument("--every", type=positive(int), default=50, help="steps from one checkpoint to the next")
    asked = parser.parse_args()
    world = MPI.COMM_WORLD.Dup()
    steps = Timed(Step, "run")
    begin, write = Timed(Snapshots, "begin"), Timed(Snapshots, "_write")
    record = [Timed(FlightRecorder, name) for name in ("begins", "computed", "summed")]
    network = f"--data synthetic --hidden {asked.hidden} --optimizer adam --lr 0.001 --quiet --evaluate-every 1000000"
    saving = f"--record --steps {asked.steps} --checkpoint-every {asked.every}"
    with tempfile.TemporaryDirectory() as own:
        folder = world.bcast(own, root=0)
        code = ddpgd(f"train {network} {saving} --run-dir {folder}/run".split())
        world.Barrier()
    if code or world.rank:
        raise SystemExit(code)
    recorded = [sum(parts) for parts in zip(*(part.wall_ms for part in record), strict=True)]
    of_checkpoint = statistics.median(begin.wall_ms), statistics.median(write.cpu_ms)
    step = statistics.median(steps.wall_ms) - statistics.median(recorded)
    between = asked.every * step
    print("| part | ms | share |\n|---|---|---|")
    print(f"| a step, without its recording | {step:.2f} | |")
    print(f"| its recording | {told(recorded)} | {statistics.median(recorded) / step:.1%} of the step |")
    print(
        f"| a checkpoint, between steps | {told(begin.wall_ms)} | {of_checkpoint[0] / between:.1%} of {asked.every} steps |"
    )
    print(f"| its thread, computing | {told(write.cpu_ms)} | {of_checkpoint[1] / between:.1%} |")
    print(f"| its thread, from begin to end | {told(write.wall_ms)} | |")
    command = f"mpirun -n {world.size} python -m benchmarks.failures.saving {' '.join(sys.argv[1:])}"
    print(f"\n- command: `{command.strip()}`\n- commit: {commit()}", flush=True)


if __name__ == "__main__":
    main()
