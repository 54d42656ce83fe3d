"""Ranks of MPI of which some may die: those that are left go on, by the fault tolerance of Open MPI (ULFM).

Bland, Bouteiller, Herault, Bosilca, Dongarra, "Post-failure recovery of MPI communication capability", 2013.
"""

import os
import pickle
from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI

from ddpgd.comm import losses
from ddpgd.comm.transport import T, Transport
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.errors import DdpgdError

_ENABLED = "OMPI_MCA_mpi_ft_enable"
"""What Open MPI's mpirun --with-ft ulfm sets."""
_TOKEN = np.zeros(0, np.uint8)


def is_possible() -> bool:
    """Returns whether the launcher lets ranks go on when others die."""
    return os.environ.get(_ENABLED, "") in ("1", "true")


class MpiElastic(MpiHost):
    """`MpiHost` whose collectives are sure to fail where a rank has died: made of messages, whose states are looked at.

    Where nobody asks for states, MPI_Waitall of Open MPI 5.0 ends well though a message has failed, and what should have been
    received is whatever was in memory before. Its own collectives wait so.
    """

    def all_gather_objects(self, value: T) -> list[T]:
        own, sent = np.frombuffer(pickle.dumps(value), np.uint8), self.bytes_sent
        sizes = np.full(self.world_size, len(own))
        self.all_gather([[sizes[rank : rank + 1]] for rank in range(self.world_size)])
        parts = [own if rank == self.rank else np.empty(size, np.uint8) for rank, size in enumerate(sizes.tolist())]
        self.all_gather([[part] for part in parts])
        self.bytes_sent = sent
        return [pickle.loads(part.tobytes()) for part in parts]

    def barrier(self) -> None:
        """As `Transport`: by rounds of messages twice as far each (Hensgen, Finkel, Manber 1988)."""
        distance = 1
        while distance < self.world_size:
            ahead, behind = (self.rank + distance) % self.world_size, (self.rank - distance) % self.world_size
            self._comm.Sendrecv(_TOKEN, ahead, recvbuf=_TOKEN, source=behind)
            distance *= 2

    def _wait(self, requests: Sequence[MPI.Request]) -> None:
        MPI.Request.Waitall(requests, [MPI.Status() for _ in requests])


class Elastic:
    """All ranks that the launcher started, and what is left of them.

    `survived`: the errors that tell that ranks have died.
    """

    survived = (MPI.Exception,)

    def __init__(self) -> None:
        self._comm: MPI.Comm = MPI.COMM_WORLD.Dup()
        self._past: list[object] = []
        """Groups with dead ranks: MPI may still write to what their ranks last received into."""

    def run(self, attempt: Callable[[Transport], T]) -> T:
        """Returns what attempt(ranks) does; each time that ranks die, it is called once more, with those that are left.

        Raises:
            DdpgdError: As `attempt`, if no rank has died meanwhile.
        """
        while True:
            ended: list[T] = []
            failure: Exception | None = None
            world = None
            try:
                world = MpiElastic(self._comm)
                ended.append(attempt(world))
            except (*self.survived, DdpgdError) as error:
                failure = error
            is_lost = isinstance(failure, self.survived)
            if is_lost:
                self._revoke(world)
            if self._all_ended(not is_lost):
                if failure:
                    raise failure
                return ended[0]
            self._past.append((world, failure, self._comm))
            self._leave_the_dead(failure)

    def _revoke(self, world: MpiHost | None) -> None:
        """Ends the collectives in which other ranks wait for this one."""
        if world is not None:
            world.revoke()
        self._comm.Revoke()

    def _all_ended(self, has_ended: bool) -> bool:
        """Returns whether no rank has died, and all have come to their end; the same on all that are left."""
        try:
            return bool(self._comm.Agree(int(has_ended)))
        except MPI.Exception:
            return False

    def _leave_the_dead(self, failure: Exception | None) -> None:
        losses.note(is_first=False)
        before = self._comm.Get_size()
        self._comm = self._comm.Shrink()
        losses.note(is_first=self._comm.Get_rank() == 0)
        if self._comm.Get_size() == before and failure is not None:
            raise failure
