"""A GPU as a device: its memory, transfers, streams and graphs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import cupy
import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.cuda.launcher import GraphLoop, Launcher
from ddpgd.kernels.cuda.persistent import Persistent
from ddpgd.kernels.device_ops import Array

NUM_LANES = 8
"""Backends whose kernels, those of small networks, share a GPU."""


class CudaDevice:
    """`DeviceOps` on a stream of a GPU, with a second one beside it, for the thread that made it."""

    runs_ahead = True

    def __init__(self, launch: Launcher, persistent: bool) -> None:
        """`persistent`: loops of ops alone run as one kernel where that can be."""
        self._launch = launch
        self._persistent = Persistent(launch) if persistent else None
        # A persistent kernel takes the whole device.
        self.num_lanes = 1 if persistent else NUM_LANES

    @property
    def stream(self) -> Any:
        return self._launch.stream

    @property
    def num_launches(self) -> int:
        """Number of kernels launched, or captured, so far."""
        return self._launch.num_launches

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        self.stream.use()
        return self._array(cupy.empty(shape, dtype))

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return self._launch.zeros(shape, dtype)

    def from_host(self, values: Array) -> Array:
        return self._launch.from_host(values)

    def to_host(self, values: Array) -> Array:
        self.stream.use()
        # A window is made whole here: CuPy's own `get` of one leaves the thread on the null stream (cupy/cupy#8377).
        whole = values if values.flags.c_contiguous else cupy.ascontiguousarray(values)
        return self._array(cupy.asnumpy(whole))

    def upload(self, values: Array, out: Any) -> None:
        out.set(values, stream=self.stream)

    def download(self, values: Any, out: Array) -> None:
        assert values.flags.c_contiguous, "not contiguous"
        values.get(stream=self.stream, out=out, blocking=False)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        count = int(np.prod(shape))
        memory = cupy.cuda.alloc_pinned_memory(count * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype, count).reshape(shape)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        return self._launch.capture(work)

    def capture_loop(self, work: Callable[[], None], ops_alone: bool) -> Callable[[int], None]:
        loop = self._persistent.loop(self._launch.rehearse(work)) if self._persistent and ops_alone else None
        return loop or GraphLoop(self._launch, work)

    def aside(self) -> AbstractContextManager[None]:
        return self._launch.aside()

    def join(self) -> None:
        self._launch.join()

    def synchronize(self) -> None:
        self.stream.synchronize()

    def _array(self, array: Any) -> Array:
        """For the type checker: CuPy's arrays are used here as NumPy's are."""
        return array  # type: ignore[no-any-return]
