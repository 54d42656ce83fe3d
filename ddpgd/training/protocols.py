"""The parts that the loop of a run works with: what combines ranks, who is told, and faults on purpose."""

from collections.abc import Sequence
from typing import Protocol

from ddpgd.comm.exchange import Exchange
from ddpgd.data.batches import Batches
from ddpgd.kernels.device_ops import Array
from ddpgd.training.counters import Counters, Record
from ddpgd.training.passes import Passes
from ddpgd.training.state import TrainState
from ddpgd.training.step_result import StepResult


class Observer(Protocol):
    """Sees what a run tells."""

    def step(self, counters: Counters) -> None:
        """After one or more steps; must be cheap."""

    def record(self, record: Record) -> None:
        """After every logged step and evaluation."""

    def say(self, line: str) -> None:
        """Something that happened."""


class Disturbance(Protocol):
    """Things that happen to this rank on purpose."""

    def next_step(self, step: int) -> int | None:
        """Returns the first step after `step` at which something happens; None: there is none."""

    def before(self, step: int) -> None:
        """Does what is due when `step` steps are done."""


class Tap(Protocol):
    """Sees, or changes, what a step works on, between its parts: on one rank, step by step."""

    def begins(self, step: int, params: Array) -> None:
        """Before step number `step`, from 0, with params (n,)."""

    def computed(self, pieces: Sequence[Array]) -> None:
        """This rank's gradients (n,), which it adds to the sum; empty where it has no micro-batch."""

    def summed(self, grads: Array) -> None:
        """The sum over all ranks (n,), or the part that this rank gets."""


class Keeper(Protocol):
    """Keeps what a run goes on from when ranks die: the last step that is complete."""

    def keep(self) -> None:
        """Copies the state, before a step after which ranks meet once more."""

    def complete(self) -> None:
        """All ranks have come to the end of that step."""


class Saves(Protocol):
    """Writes checkpoints while training goes on."""

    def wait_for_last(self) -> None:
        """Waits, on the rank that writes, until the checkpoint before is written, unless that takes very long."""

    def begin(self) -> None:
        """Begins to write a checkpoint, after `wait_for_last`; every rank calls it."""

    def finish(self) -> None:
        """Waits until the last one is written; every rank calls it. DdpgdError, on all ranks: it cannot be."""


class Sync(Protocol):
    """The choice of what ranks combine, and when: `Step` gradients, every step; `LocalSgd` params, after some steps;
    `Federated` changes of clients, every round."""

    state: TrainState
    passes: Passes
    batches: Batches
    exchange: Exchange

    def run(self, step: int, count: int, stop: bool, observe: bool) -> StepResult:
        """One or more steps, to a point where ranks are equal: at most `count`, or as many as that takes."""

    def non_finite(self, step: int) -> str:
        """Names the first gradient of `step` on this rank that is not finite; empty: there is none."""

    def figures(self) -> Record:
        """Returns figures of its own for the summary, and numbers among them for records; every rank calls it."""
