"""The proof that replicas are equal: checksums of params and optimizer vectors, compared between ranks during the run."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.transport import Array, Transport
from ddpgd.config.units import enumerated
from ddpgd.errors import ReplicasDiffer
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout
from ddpgd.training.state import TrainState

Checksums = Mapping[str, int]
"""Checksums by tensor, in order; of a vector without tensors, one."""


class Copy(NamedTuple):
    """A vector of which several ranks hold the same elements.

    Attributes:
        name: As in a checkpoint.
        places: The same on the ranks that hold the same elements.
        vector: This rank's, float32, of an even number of elements.
    """

    name: str
    places: Hashable
    vector: Array


class Difference(NamedTuple):
    """A rank whose vector is not that of most others with the same elements.

    Attributes:
        rank: Of two that differ, the second.
        name: The vector, by name.
        tensor: The first tensor in it that differs.
        source: A rank that has what most have; None: no more than half of them agree.
        others: The ranks that agree.
    """

    rank: int
    name: str
    tensor: str
    source: int | None
    others: list[int]


class Replicas:
    """Compares what ranks hold in common.

    Args:
        ops: The backend where the vectors are.
        transport: All ranks.
        state: What they hold.
        layout: Of this rank's params.
        heals: What differs is replaced by what most ranks hold.
    """

    def __init__(self, ops: Ops, transport: Transport, state: TrainState, layout: Layout, heals: bool = False) -> None:
        self._ops = ops
        self._transport = transport
        self._state = state
        self._layout = layout
        self._heals = heals
        self._equal_at = state.counters.step

    def check(self) -> str:
        """Compares the ranks; every rank calls it. Returns what was healed in one line; empty: all are equal.

        Raises:
            ReplicasDiffer: Ranks differ, and are not healed.
        """
        if self._transport.world_size == 1:
            return ""
        copies = self._copies()
        own = [(copy.name, copy.places, self._checksums(copy.vector)) for copy in copies]
        everybody = self._transport.all_gather_objects(own)
        differing = differences(everybody)
        if not differing:
            self._equal_at = self._state.counters.step
            return ""
        line = self._line(differing)
        is_curable = all(one.source is not None for one in differing)
        if not (self._heals and is_curable):
            raise refusal(line, is_curable)
        for copy in copies:
            self._heal(copy, [one for one in differing if one.name == copy.name])
        return f"{line}; it has got what the others hold"

    def _copies(self) -> list[Copy]:
        state, rank = self._state, self._transport.rank
        params, optimizer = _hashable(state.held.params[rank]), _hashable(state.held.optimizer[rank])
        return [
            Copy("params", params, state.params),
            *(Copy(name, optimizer, vector) for name, vector in state.divided.items()),
            *(Copy(name, "all", vector) for name, vector in state.replicated.items()),
        ]

    def _checksums(self, vector: Array) -> Checksums:
        """Returns the sums of a vector's 64-bit words, modulo 2^64: one for each tensor where it is as long as the params."""
        words: NDArray[np.uint64] = self._ops.to_host(vector).view(np.uint64)
        if len(vector) != self._layout.size or not len(words):
            return {"": int(np.add.reduce(words))}
        tensors = self._layout.tensors
        sums: list[int] = np.add.reduceat(words, [tensor.start // 2 for tensor in tensors]).tolist()
        return {f"{tensor.name} {tensor.start}": one for tensor, one in zip(tensors, sums, strict=True)}

    def _line(self, differing: list[Difference]) -> str:
        first = told(differing[0], range(self._transport.world_size))
        return (
            f"step {self._state.counters.step}: {first}; all were equal at step {self._equal_at}, so memory or a message was "
            "damaged"
        )

    def _heal(self, copy: Copy, differing: list[Difference]) -> None:
        """Sends what most ranks hold to those that differ."""
        rank, state, ops = self._transport.rank, self._state, self._ops
        host = np.array(ops.to_host(copy.vector))
        sends: list[list[Array]] = [[] for _ in range(self._transport.world_size)]
        receives: list[list[Array]] = [[] for _ in sends]
        for one in differing:
            if one.source == rank:
                sends[one.rank].append(host)
            if one.rank == rank and one.source is not None:
                receives[one.source].append(host)
        self._transport.all_to_all(sends, receives)
        if any(receives):
            ops.upload(host, copy.vector)
            if copy.vector is state.params and state.weights is not state.params:
                ops.copy(ops.round_weights(state.params), state.weights)


def differences(everybody: Sequence[Sequence[tuple[str, Hashable, Checksums]]]) -> list[Difference]:
    """Finds ranks that hold other bits than most of those that should hold the same.

    Args:
        everybody: The vectors of each rank: name, places, and checksums of its tensors.
    """
    alike: dict[tuple[str, Hashable], dict[int, Checksums]] = {}
    for rank, vectors in enumerate(everybody):
        for name, places, sums in vectors:
            alike.setdefault((name, places), {})[rank] = sums
    found = []
    for (name, _), of_ranks in alike.items():
        kinds = Counter(tuple(sums.items()) for sums in of_ranks.values())
        if len(kinds) == 1:
            continue
        usual, count = kinds.most_common(1)[0]
        agreeing = [rank for rank, sums in of_ranks.items() if tuple(sums.items()) == usual]
        source = agreeing[0] if 2 * count > len(of_ranks) else None
        for rank, sums in of_ranks.items():
            if rank not in agreeing:
                tensor = next(tensor for tensor, one in usual if sums.get(tensor) != one)
                found.append(Difference(rank, name, tensor.partition(" ")[0], source, agreeing))
    return found


def refusal(line: str, is_curable: bool) -> ReplicasDiffer:
    """Returns the end of a run whose ranks differ, as `line` says; `is_curable`: more than half of them agree."""
    cure = "; --heal takes what most ranks hold" if is_curable else ""
    return ReplicasDiffer(f"{line}; go on from the last checkpoint with --resume{cure}")


def told(one: Difference, ranks: Sequence[int]) -> str:
    """Words a difference, as in "params of rank 2 differ from those of ranks 0 and 1". `ranks`: their numbers."""
    others = [str(ranks[other]) for other in one.others]
    if one.source is not None:
        who = f"of rank {ranks[one.rank]} differ from those of rank{'s' * (len(others) > 1)} {enumerated(others)}"
    else:  # of two, nobody knows which one is right
        who = f"differ on ranks {enumerated(sorted([str(ranks[one.rank]), *others], key=int))}"
    return f"{one.name} {who}{f', first in {one.tensor}' if one.tensor else ''}"


def _hashable(places: tuple[slice, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((span.start, span.stop) for span in places)
