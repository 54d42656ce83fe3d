"""Host transports for device arrays: what travels goes through pinned host memory, there and back."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from numpy.typing import DTypeLike, NDArray

from ddpgd.comm.transport import Array, PointToPoint, T, Transport


class Staging(Protocol):
    """The part of `Ops` that moves arrays between device and host."""

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]: ...

    def upload(self, values: NDArray[Any], out: Array) -> None: ...

    def download(self, values: Array, out: NDArray[Any]) -> None: ...

    def synchronize(self) -> None: ...


class Staged:
    """`Transport` for the arrays of a device, over one for host memory."""

    needs_host = True

    def __init__(self, transport: Transport, staging: Staging) -> None:
        self.name = transport.name
        self.rank = transport.rank
        self.world_size = transport.world_size
        self._transport = transport
        self._staging = staging
        self._pairs: dict[int, tuple[Array, NDArray[Any]]] = {}

    @property
    def bytes_sent(self) -> int:
        return self._transport.bytes_sent

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        outgoing = self._downloaded(sends)
        incoming = self._hosts(receives)
        self._transport.all_to_all(outgoing, incoming)
        self._upload(incoming, receives)

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        hosts = self._hosts(receives)
        distinct = list({id(array): array for arrays in sends for array in arrays}.values())
        work = self._transport.all_to_all_init(self._hosts(sends), hosts)

        def run() -> None:
            self._downloaded([distinct])
            work()
            self._upload(hosts, receives)

        return run

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        own = [parts[rank] if rank == self.rank else () for rank in range(self.world_size)]
        others = [() if rank == self.rank else parts[rank] for rank in range(self.world_size)]
        self._downloaded(own)
        self._transport.all_gather(self._hosts(parts))
        self._upload(self._hosts(others), others)

    def all_reduce(self, buffer: Array) -> None:
        ((host,),) = self._downloaded([[buffer]])
        self._transport.all_reduce(host)
        self._staging.upload(host, buffer)

    def all_gather_objects(self, value: T) -> list[T]:
        return self._transport.all_gather_objects(value)

    def barrier(self) -> None:
        self._transport.barrier()

    def connect(self, peers: Sequence[int]) -> None:
        self._point_to_point().connect(peers)

    def send(self, array: Array, peer: int) -> Callable[[], object]:
        ((host,),) = self._downloaded([[array]])
        return self._point_to_point().send(host, peer)

    def receive(self, array: Array, peer: int) -> Callable[[], object]:
        host = self._host(array)
        wait = self._point_to_point().receive(host, peer)

        def arrive() -> None:
            wait()
            self._staging.upload(host, array)
            self._staging.synchronize()  # the next message may come into `host` at once

        return arrive

    def _point_to_point(self) -> PointToPoint:
        assert isinstance(self._transport, PointToPoint)
        return self._transport

    def duplicate(self) -> Self:
        return type(self)(self._transport.duplicate(), self._staging)

    def split(self, color: int) -> Self:
        return type(self)(self._transport.split(color), self._staging)

    def close(self) -> None:
        self._transport.close()

    def abort(self, exit_code: int) -> None:
        self._transport.abort(exit_code)

    def _downloaded(self, arrays: Sequence[Sequence[Array]]) -> list[list[NDArray[Any]]]:
        """Host copies, complete: MPI knows nothing of streams."""
        hosts = self._hosts(arrays)
        for own, theirs in zip(arrays, hosts, strict=True):
            for array, host in zip(own, theirs, strict=True):
                self._staging.download(array, host)
        self._staging.synchronize()
        return hosts

    def _upload(self, hosts: Sequence[Sequence[NDArray[Any]]], arrays: Sequence[Sequence[Array]]) -> None:
        for theirs, own in zip(hosts, arrays, strict=True):
            for host, array in zip(theirs, own, strict=True):
                self._staging.upload(host, array)

    def _hosts(self, arrays: Sequence[Sequence[Array]]) -> list[list[NDArray[Any]]]:
        return [[self._host(array) for array in own] for own in arrays]

    def _host(self, array: Array) -> NDArray[Any]:
        """The pinned twin of an array that comes back every step; holding the array keeps its id its own."""
        pair = self._pairs.get(id(array))
        if pair is None:
            pair = self._pairs[id(array)] = (array, self._staging.pinned(array.shape, array.dtype))
        return pair[1]
