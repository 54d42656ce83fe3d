"""Memory and order of a backend's work, written once: arrays, transfers, streams, and what is captured and repeated."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

REPLAYS = ("graph", "persistent")
"""Forms in which a GPU runs many steps without the host: CUDA graphs, or, where the network is small, one kernel."""


class DeviceOps(Protocol):
    """Memory and order of work. `device` is what it is, in words."""

    device: str
    runs_ahead: bool
    """True if steps may run before the host looks, where no transport needs it."""

    num_lanes: int
    """So many backends of a rank may work at once, each in a thread of its own; see `another`."""

    @property
    def stream(self) -> Any:
        """The stream of what is asked for now: another one within `aside`. None on a CPU."""

    def another(self) -> Self:
        """Returns a backend like this one on the same device, for the thread that calls it."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An uninitialised array where the backend computes."""

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of zeros where the backend computes."""

    def from_host(self, values: Array) -> Array:
        """A copy (or, where host and device are one, the array itself) of host `values` where the backend computes."""

    def to_host(self, values: Array) -> Array:
        """A NumPy array with `values`, when all work before is done; the array itself where host and device are one."""

    def upload(self, values: Array, out: Array) -> None:
        """out = host `values` of the same shape and dtype. `pinned` values must stay as they are until `synchronize`."""

    def download(self, values: Array, out: Array) -> None:
        """Host array out = `values`, of the same shape and dtype, at `synchronize`."""

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Uninitialised host memory that upload and download reach fastest."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """A function that does what `work` does, as fast as can be. `work` calls ops, always the same ones, collectives of
        transports that do without the host, and the `fill` of arrays; no transfer, and nothing that waits. Fills and
        collectives may happen once more than asked for: arrays that they change hold nothing that is needed afterwards."""

    def capture_loop(self, work: Callable[[], None], ops_alone: bool) -> Callable[[int], None]:
        """A function that does what `work` does as often as it is told; see `capture`. `ops_alone`: `work` only calls ops."""

    def aside(self) -> AbstractContextManager[None]:
        """A context whose work goes on beside what is asked for after it: a second stream of a device.

        It begins after all that was asked for before, and `join` must follow, in the same capture. Only `add`, `tree_sum`,
        the ops of `Codec`s, and collectives of transports that do without the host may be called in it.
        """

    def join(self) -> None:
        """Lets what is asked for from now on begin after all that was asked for in `aside`."""

    def synchronize(self) -> None:
        """Returns when everything asked for is done, but for what no `join` has followed."""
