"""NCCL between GPUs, each of them one rank's: the transport of NVLink and InfiniBand. MPI starts it, and ends it.

Collectives follow each other on one stream. Messages of a pipeline have a `Line` for each direction to each neighbour, so
that none waits behind another that its own end depends on.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Self

import cupy
import numpy as np
from cupy.cuda import nccl

from ddpgd.comm.agreement import first_failure
from ddpgd.comm.transport import Array, T, Transport, gathering

if not nccl.available:  # CuPy's module imports without the library too
    raise ImportError("cupy.cuda.nccl is not available")

TRIAL_S = 60.0
"""A trial that takes longer is given up; with many ranks it may take `TRIAL_RANK_S` longer for each."""
TRIAL_RANK_S = 0.1
TRIAL_WORDS = 1 << 20
"""Of the messages between neighbours in a trial: more than NCCL takes before the other end comes."""


class Nccl:
    """`Transport` for device arrays: calls return at once, and work follows what came before on the stream of their time.

    `world` carries objects and ends the job; `communicator` is NCCL's, of the same ranks. Arrays travel as bytes: NCCL
    through CuPy knows no bfloat16. `family`: the communicators of all groups that were split off the same ranks, and lines.
    """

    name = "nccl"
    needs_host = False

    def __init__(
        self, world: Transport, stream: Callable[[], Any], communicator: Any, family: list[Any] | None = None
    ) -> None:
        self.rank = world.rank
        self.world_size = world.world_size
        self.bytes_sent = 0
        self._world = world
        self._stream = stream
        self._nccl = communicator
        self._family = [] if family is None else family
        self._family.append(communicator)
        self._lines: dict[tuple[int, int], Line] = {}

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        # One group: NCCL starts all of them together, so that no order of sends and receives can block.
        stream = self._stream().ptr
        nccl.groupStart()
        for peer in range(self.world_size):
            for array in sends[peer]:
                self._nccl.send(_address(array), array.nbytes, nccl.NCCL_UINT8, peer, stream)
                self.bytes_sent += array.nbytes
            for array in receives[peer]:
                self._nccl.recv(_address(array), array.nbytes, nccl.NCCL_UINT8, peer, stream)
        nccl.groupEnd()

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        return partial(self.all_to_all, sends, receives)

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        self.all_to_all(*gathering(parts, self.rank))

    def all_reduce(self, buffer: Array) -> None:
        """As `Transport`; the bytes counted are those of a ring, because the library does not tell."""
        address = _address(buffer)
        self._nccl.allReduce(address, address, buffer.size, nccl.NCCL_FLOAT32, nccl.NCCL_SUM, self._stream().ptr)
        self.bytes_sent += 2 * buffer.nbytes * (self.world_size - 1) // self.world_size

    def connect(self, peers: Sequence[int]) -> None:
        self.open_lines(peers, self._world.all_gather_objects(line_ids(peers)))

    def open_lines(self, peers: Sequence[int], identifiers: Sequence[Mapping[int, Any]]) -> None:
        """Opens a line to each of `peers` and one from it. `identifiers`: the `line_ids` of each rank."""
        # All ranks open theirs in one order, so that nobody waits for one that its other end will not come to.
        for source, target in sorted(pair for peer in peers for pair in ((self.rank, peer), (peer, self.rank))):
            line = Line(nccl.NcclCommunicator(2, identifiers[source][target], int(self.rank == target)))
            self._lines[source, target] = line
            self._family.append(line.communicator)

    def send(self, array: Array, peer: int) -> Callable[[], object]:
        self.bytes_sent += array.nbytes
        line = self._lines[self.rank, peer]
        ended = line.carry(self._stream(), line.communicator.send, array, 1)
        return lambda: self._stream().wait_event(ended)

    def receive(self, array: Array, peer: int) -> Callable[[], object]:
        line = self._lines[peer, self.rank]
        ended = line.carry(self._stream(), line.communicator.recv, array, 0)
        return lambda: self._stream().wait_event(ended)

    def all_gather_objects(self, value: T) -> list[T]:
        return self._world.all_gather_objects(value)

    def barrier(self) -> None:
        self._stream().synchronize()
        self._world.barrier()

    def duplicate(self) -> Self:
        """Streams keep the order of all calls, so nobody's messages meet another's; the count of bytes is its own."""
        twin = copy(self)
        twin.bytes_sent = 0
        return twin

    def split(self, color: int) -> Self:
        group = self._world.split(color)
        identifier = nccl.get_unique_id() if group.rank == 0 else None
        identifier = group.all_gather_objects(identifier)[0]
        communicator = nccl.NcclCommunicator(group.world_size, identifier, group.rank)
        return type(self)(group, self._stream, communicator, self._family)

    def close(self) -> None:
        self._world.close()

    def abort(self, exit_code: int) -> None:
        for communicator in self._family:
            communicator.abort()
        self._world.abort(exit_code)


class Line:
    """The way from one rank to another: a communicator of the two and a stream, on which there is nothing else."""

    def __init__(self, communicator: Any) -> None:
        self.communicator = communicator
        self._stream = cupy.cuda.Stream(non_blocking=True)

    def carry(self, stream: Any, call: Callable[..., None], array: Array, peer: int) -> Any:
        """Starts a message after all that is on `stream`; returns the event of its end. `peer`: the other of the two."""
        begun, ended = (cupy.cuda.Event(disable_timing=True) for _ in ("begun", "ended"))
        begun.record(stream)
        self._stream.wait_event(begun)
        nccl.groupStart()
        call(_address(array), array.nbytes, nccl.NCCL_UINT8, peer, self._stream.ptr)
        nccl.groupEnd()
        ended.record(self._stream)
        return ended


def line_ids(peers: Sequence[int]) -> dict[int, Any]:
    """Returns the names of the lines from this rank to others, by rank."""
    return {peer: nccl.get_unique_id() for peer in peers}


def join(world: Transport, stream: Callable[[], Any], has_stages: bool = False) -> tuple[Nccl | None, str]:
    """Starts NCCL between the ranks of `world` and tries its collectives; every rank calls it.

    Args:
        world: The ranks.
        stream: Returns the stream that takes the next calls. Those on another one must come after all before them, as after
            `Ops.aside` and `Ops.join`.
        has_stages: Also messages between neighbours are tried, of both directions at once.

    Returns:
        The transport, on all ranks, or None; and the reason in one line where it is None, the same on all ranks.
    """
    identifier, why = _unique_id() if world.rank == 0 else (None, "")
    identifier, why = world.all_gather_objects((identifier, why))[0]
    if why:
        return None, why
    neighbours = [rank for rank in (world.rank - 1, world.rank + 1) if 0 <= rank < world.world_size and has_stages]
    trial = _Trial(world, identifier, neighbours, world.all_gather_objects(line_ids(neighbours)))
    if why := first_failure(world, trial.run(TRIAL_S + TRIAL_RANK_S * world.world_size)):
        trial.abort()
        return None, why
    return Nccl(world, stream, trial.communicator), ""


def _unique_id() -> tuple[Any, str]:
    try:
        return nccl.get_unique_id(), ""
    except nccl.NcclError as error:
        return None, _does_not_start(error)


def _does_not_start(error: object) -> str:
    return f"NCCL does not start: {error}; NCCL_DEBUG=WARN says more"


class _Trial:
    """NCCL's start and one use of each collective, in a thread, because either may hang for ever."""

    def __init__(
        self, world: Transport, identifier: Any, neighbours: Sequence[int], identifiers: Sequence[Mapping[int, Any]]
    ) -> None:
        """`neighbours`: the ranks to send to, over lines of these `identifiers`; none: collectives alone are tried."""
        self.communicator: Any = None
        self._world = world
        self._identifier = identifier
        self._neighbours = neighbours
        self._identifiers = identifiers
        self._device = cupy.cuda.Device()
        self._why: str | None = None

    def run(self, limit_s: float) -> str:
        """Returns why it failed; empty: it did not."""
        thread = threading.Thread(target=self._try, name="NCCL trial", daemon=True)
        thread.start()
        thread.join(limit_s)
        return _does_not_start(f"no end of a trial within {limit_s:g} s") if self._why is None else self._why

    def abort(self) -> None:
        """Ends what the trial has started, as far as that lets itself be ended."""
        if self.communicator is not None:
            threading.Thread(target=self.communicator.abort, daemon=True).start()

    def _try(self) -> None:
        try:
            self._device.use()
            self.communicator = nccl.NcclCommunicator(self._world.world_size, self._identifier, self._world.rank)
            stream = cupy.cuda.Stream(non_blocking=True)  # of its own: one that hangs must not hold up the run
            stream.use()
            transport = Nccl(self._world, lambda: stream, self.communicator)
            arrives = self._sums(transport) and self._meets(transport)
            self._why = "" if arrives else _does_not_start("a trial gave a wrong sum")
        except Exception as error:  # noqa: BLE001 - told to all ranks, which go on without NCCL
            self._why = _does_not_start(str(error).splitlines()[0] if str(error) else type(error).__name__)

    def _sums(self, transport: Nccl) -> bool:
        """True if every rank's 1 arrives at every rank, alone and in a sum."""
        one, total = (cupy.asarray(np.ones(1, np.float32)) for _ in ("one", "total"))
        others = [cupy.zeros((1,), np.float32) for _ in range(self._world.world_size)]
        transport.all_reduce(total)
        transport.all_gather([[one if rank == self._world.rank else other] for rank, other in enumerate(others)])
        received = [float(cupy.asnumpy(other)[0]) for rank, other in enumerate(others) if rank != self._world.rank]
        return float(cupy.asnumpy(total)[0]) == self._world.world_size == 1 + sum(received)

    def _meets(self, transport: Nccl) -> bool:
        """True if every neighbour's ones arrive, though all receive before they send."""
        transport.open_lines(self._neighbours, self._identifiers)
        ones = cupy.asarray(np.ones(TRIAL_WORDS, np.float32))
        arrays = [cupy.zeros((TRIAL_WORDS,), np.float32) for _ in self._neighbours]
        waits = [transport.receive(array, peer) for array, peer in zip(arrays, self._neighbours, strict=True)]
        waits += [transport.send(ones, peer) for peer in self._neighbours]
        for wait in waits:
            wait()
        return all(bool((cupy.asnumpy(array) == 1).all()) for array in arrays)


def _address(array: Any) -> int:
    return int(array.data.ptr)
