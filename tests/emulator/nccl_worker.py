"""Short runs on ranks of mpirun, each with an emulated GPU of its own, over the emulated NCCL.

python -m emulator.nccl_worker FOLDER CASES: a JSON object of options by case. Rank 0 prints a JSON object of a list by case:
the report of each rank. A case's `stop_on` is [rank, number of times that it is asked before it wants to stop]; `ahead` 0 lets
the host look after every step. With `one_stream`, a fault, messages of stages have no streams of their own; `untried`: and no
trial comes before them.
"""

import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import ddpgd.training.lookahead
from ddpgd.comm.launcher import launch
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports import nccl
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.errors import DdpgdError
from ddpgd.kernels.cuda.backend import Cuda
from ddpgd.run import setup, starting
from ddpgd.training.lookahead import Lookahead
from ddpgd.training.step import Step
from ddpgd.training.stopping import StopRequest
from runs import train_on_small_digits

SMALL = {"data": "synthetic", "hidden": [12], "global_batch": 20, "micro_batch": 3, "lr": 0.05, "steps": 30}
SMALL |= {"log_every": 25, "evaluate_every": 23, "checkpoint_every": 21}
HOST_CALLS = {
    Cuda: ("synchronize", "to_host", "upload", "download"),
    MpiHost: ("all_to_all", "all_gather", "all_reduce", "all_gather_objects", "barrier"),
}
calls: "Counter[str]" = Counter()


def counted(kind: type, name: str) -> None:
    """Counts the calls of a method."""
    method = getattr(kind, name)

    def call(*arguments: Any) -> Any:
        calls[name] += 1
        return method(*arguments)

    setattr(kind, name, call)


class Asked(StopRequest):
    """A request to stop after the training loop has asked for it so many times; never, for a negative number."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def __bool__(self) -> bool:
        if threading.current_thread() is threading.main_thread():
            self.times -= 1
            self.reason = self.reason or "enough" * (self.times == -1)
        return bool(self.reason)


def watched(looks: list[Any]) -> Callable[..., Any]:
    """`Step.run`, which also notes its number of steps and the host's calls between their start and their end."""
    run = Step.run

    def noting(self: Step, step: int, count: int, stop: bool, observe: bool) -> Any:
        before, decided = calls.copy(), self._num_decided
        result = run(self, step, count, stop, observe)
        looks.append([self._num_decided - decided, observe, dict(calls - before)])
        return result

    return noting


@contextmanager
def faulty(one_stream: bool, untried: bool) -> Iterator[None]:
    """Lets messages of stages share the stream of computing, and their trial pass."""
    with pytest.MonkeyPatch.context() as patch:
        if one_stream:
            carry = nccl.Line.carry

            def carry_there(self: nccl.Line, stream: Any, *message: Any) -> Any:
                self._stream = stream
                return carry(self, stream, *message)

            patch.setattr(nccl.Line, "carry", carry_there)
        if untried:
            patch.setattr("ddpgd.comm.transports.nccl._Trial._meets", lambda *_: True)
        yield


def report(folder: Path, given: dict[str, Any], world: Transport) -> dict[str, Any]:
    """Runs a case; returns its summary or its error, and what this rank saw."""
    stop_rank, times = given.pop("stop_on", (-1, -1))
    own = world.rank  # ranks disagree on the time of a step, each in another way every time

    def note(self: Lookahead, _: float, told_step_s: float) -> None:
        nonlocal own
        own += 1
        plain_note(self, ddpgd.training.lookahead.LONGEST_RUN_S / (9.5 + own % 5), told_step_s)

    plain_note, plain_run, plain_num_steps, looks = Lookahead.note, Step.run, Lookahead.num_steps, []
    Lookahead.note, Step.run = note, watched(looks)  # type: ignore[method-assign]
    if not given.pop("ahead", 1):
        Lookahead.num_steps = lambda *_: 1  # type: ignore[method-assign]
    small = {} if "resume" in given else SMALL
    everywhere = {"run_dir": str(folder), "quiet": True, "transport": "nccl"}
    stop = Asked(times if world.rank == stop_rank else -1)
    try:
        with faulty(given.pop("one_stream", False), given.pop("untried", False)):
            ended = starting.start_run(small | everywhere | given, world, launch(os.environ), stop)
    except DdpgdError as error:
        ended = {"error": type(error).__name__, "line": str(error)}
    finally:
        Lookahead.note, Step.run, Lookahead.num_steps = plain_note, plain_run, plain_num_steps  # type: ignore[method-assign]
    return {"ended": ended, "looks": looks}


def main() -> None:
    for kind, names in HOST_CALLS.items():
        for name in names:
            counted(kind, name)
    train_on_small_digits(setattr)
    world = setup.join(launch(os.environ), may_use_gpu=True)
    cases = json.loads(sys.argv[2])
    reports = {
        name: world.all_gather_objects(report(Path(sys.argv[1]) / name, given, world)) for name, given in cases.items()
    }
    if world.rank == 0:
        print(json.dumps(reports))


if __name__ == "__main__":
    main()
