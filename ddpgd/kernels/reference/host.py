"""The host as a device: work is done when it is asked for, and nothing is copied."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.device_ops import Array


class Host:
    """`DeviceOps` in NumPy."""

    device = "CPU"
    runs_ahead = False
    num_lanes = 1
    stream = None

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.zeros(shape, dtype)

    def from_host(self, values: Array) -> Array:
        return values

    def to_host(self, values: Array) -> Array:
        return values

    def upload(self, values: Array, out: Array) -> None:
        np.copyto(out, values)

    def download(self, values: Array, out: Array) -> None:
        np.copyto(out, values)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def capture_loop(self, work: Callable[[], None], ops_alone: bool) -> Callable[[int], None]:  # noqa: ARG002
        def loop(count: int) -> None:
            for _ in range(count):
                work()

        return loop

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def join(self) -> None:
        pass

    def synchronize(self) -> None:
        pass
