"""The last complete step, which each rank keeps so that a run goes on when others die (`--elastic`)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ddpgd.comm.transport import Array, Transport
from ddpgd.config.units import enumerated
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.inject import Faults
from ddpgd.run.stderr import say


class Survival:
    """One rank's knowledge of a run, which outlives the ranks of the run.

    A step changes params only when its exchange is over, so a rank that another one fails in an exchange still holds the step
    before, whole. A rank that is ahead of others is so by one step. Steps after which ranks meet once more, to evaluate, record
    or save, are complete when that is over: before them a copy is kept.

    Args:
        rank: As the launcher numbers it: a rank's number changes when others die.
        world_size: Number of ranks that were launched.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank = rank
        self._ranks = list(range(world_size))
        self._copy: Callable[[], Checkpoint] | None = None
        self._kept: Checkpoint | None = None
        self.lost: list[int] = []
        """Ranks that have died, in order."""
        self.faults: Faults | None = None
        """Those on purpose that are still to come."""

    def follow(self, copy: Callable[[], Checkpoint]) -> None:
        """Begins to follow a run on other ranks, whose complete state `copy` returns."""
        self._copy, self._kept = copy, None

    def keep(self) -> None:
        """Copies the state, before a step after which ranks meet."""
        assert self._copy is not None, "there is a run"
        self._kept = self._copy()

    def complete(self) -> None:
        """Notes that all ranks have come to the end of that step."""
        self._kept = None

    def agree(self, world: Transport) -> Checkpoint | None:
        """Returns the last step that is complete on any rank; every rank of `world` calls it. None: no run has begun.

        On ranks other than 0, without its arrays.
        """
        own = self._kept or (self._copy() if self._copy else None)
        state = None if own is None else (replace(own, arrays={}), _shapes(own))
        told = world.all_gather_objects((self._rank, state))
        before, self._ranks = self._ranks, [rank for rank, _ in told]
        lost = [rank for rank in before if rank not in self._ranks]
        self.lost += lost
        steps = [state[0].counters["step"] if state else -1 for _, state in told]
        step = max(steps)
        source = steps.index(step)
        if lost and world.rank == 0:
            say(_told(lost, self._ranks, step))
        chosen, first = told[source][1], told[0][1]
        if chosen is None:
            return None
        saved, shapes = chosen
        arrays = _moved(world, source, own.arrays if own else {}, shapes)
        # What rank 0 has told of, it need not tell again.
        facts = saved.facts if first is None else dict(saved.facts) | {"diagnosis": first[0].facts["diagnosis"]}
        return replace(saved, arrays=arrays, facts=facts)


def _shapes(saved: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in saved.arrays.items()}


def _moved(
    world: Transport, source: int, arrays: dict[str, Array], shapes: dict[str, tuple[int, ...]]
) -> dict[str, Array]:
    """Returns the arrays of rank `source`, float32, on rank 0; elsewhere none."""
    if source == 0:
        return arrays if world.rank == 0 else {}
    sends: list[list[Array]] = [[] for _ in range(world.world_size)]
    receives: list[list[Array]] = [[] for _ in sends]
    found: dict[str, Array] = {}
    if world.rank == 0:
        found = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        receives[source] = list(found.values())
    if world.rank == source:
        sends[0] = [np.ascontiguousarray(arrays[name]) for name in shapes]
    world.all_to_all(sends, receives)
    return found


def _told(lost: list[int], left: list[int], step: int) -> str:
    who = f"rank {lost[0]} is dead" if len(lost) == 1 else f"ranks {enumerated(list(map(str, lost)))} are dead"
    rest = f"rank {left[0]} goes" if len(left) == 1 else f"{len(left)} ranks go"
    return f"{who}: {rest} on from step {max(step, 0)}"
