"""The last complete step, which each rank keeps so that a run goes on when others die (`--elastic`)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ddpgd.comm.transport import Array, Transport
from ddpgd.config.units import enumerated
from ddpgd.errors import ReplicasDiffer
from ddpgd.run import ending
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.inject import Faults
from ddpgd.run.stderr import say
from ddpgd.training.replicas import differences, refusal, told


class Survival:
    """One rank's knowledge of a run, which outlives the ranks of the run.

    A step changes params only when its exchange is over, so a rank that another one fails in an exchange still holds the step
    before, whole. A rank that is ahead of others is so by one step. Steps after which ranks meet once more, to evaluate, record
    or save, are complete when that is over: before them a copy is kept.

    Args:
        rank: As the launcher numbers it: a rank's number changes when others die.
        world_size: Number of ranks that were launched.
        survives: Errors of this rank that tell that others have died.
    """

    def __init__(self, rank: int, world_size: int, survives: tuple[type[Exception], ...] = (Exception,)) -> None:
        self.survives = survives
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

        Raises:
            ReplicasDiffer: Ranks that have it differ, so that memory or a message was damaged.
        """
        own = self._kept or (self._copy() if self._copy else None)
        state = None if own is None else (replace(own, arrays={}), _shapes(own), _checksums(own))
        everybody = world.all_gather_objects((self._rank, state))
        before, self._ranks = self._ranks, [rank for rank, _ in everybody]
        lost = [rank for rank in before if rank not in self._ranks]
        self.lost += lost
        steps = [state[0].counters["step"] if state else -1 for _, state in everybody]
        step = max(steps)
        if lost and world.rank == 0:
            say(_who_died(lost, self._ranks, step))
        has_it = {rank: state[2] for (rank, state), at in zip(everybody, steps, strict=True) if state and at == step}
        if not has_it:
            return None
        heals = any(state[0].config.get("heal") for _, state in everybody if state)
        try:
            right, healed = _right_one(has_it, step, heals)
        except ReplicasDiffer as error:
            if own and world.rank == 0:
                ending.note(Path(own.config["run_dir"]), error.exit_code, str(error))
            raise
        if healed and world.rank == 0:
            say(healed)
        source = self._ranks.index(right)
        chosen, first = everybody[source][1], everybody[0][1]
        assert chosen is not None, "it has it"
        saved, shapes, _ = chosen
        arrays = _moved(world, source, own.arrays if own else {}, shapes)
        # What rank 0 has told of, it need not tell again.
        facts = saved.facts if first is None else dict(saved.facts) | {"diagnosis": first[0].facts["diagnosis"]}
        return replace(saved, arrays=arrays, facts=facts)


def _shapes(saved: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in saved.arrays.items()}


def _checksums(saved: Checkpoint) -> dict[str, int]:
    """Returns the sum of each array's 32-bit words."""
    arrays = {name: np.ascontiguousarray(array).view(np.uint32) for name, array in saved.arrays.items()}
    return {name: int(array.sum(dtype=np.uint64)) for name, array in arrays.items()}


def _right_one(checksums: dict[int, dict[str, int]], step: int, heals: bool) -> tuple[int, str]:
    """Returns a rank whose arrays are those of all that have the step, or of most; and then, in one line, who had others.

    Raises:
        ReplicasDiffer: They differ, and nothing is to be healed, or no more than half of them agree.
    """
    ranks = list(checksums)
    found = differences([[(name, "", {"": one}) for name, one in checksums[rank].items()] for rank in ranks])
    if not found:
        return ranks[0], ""
    line = f"step {step}, from which ranks go on: {told(found[0], ranks)}, so memory or a message was damaged"
    right = [rank for rank in ranks if rank not in {ranks[one.rank] for one in found}]
    is_curable = bool(right) and all(one.source is not None for one in found)
    if not (heals and is_curable):
        raise refusal(line, is_curable)
    return right[0], f"{line}; it has got what the others hold"


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


def _who_died(lost: list[int], left: list[int], step: int) -> str:
    who = f"rank {lost[0]} is dead" if len(lost) == 1 else f"ranks {enumerated(list(map(str, lost)))} are dead"
    rest = f"rank {left[0]} goes" if len(left) == 1 else f"{len(left)} ranks go"
    return f"{who}: {rest} on from step {max(step, 0)}"
