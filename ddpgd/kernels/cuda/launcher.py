"""Launches of CUDA kernels on one stream: compiled at first use, checked, and rehearsed before they are captured."""

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.cuda import sources
from ddpgd.kernels.ops import Array

Grid = tuple[int, ...]
NULL = np.intp(0)
THREADS = 256
"""Of a block, where a kernel has no reason for another number."""
NUM_SMS = 132
"""Multiprocessors that grids are cut for: those of an H100."""


class Launcher:
    """The kernels of one precision, on one device and one stream of its own, of the thread that made it."""

    def __init__(self, precision: str) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.num_launches = 0
        """Of kernels, and calls of a library: what a step's price is made of where it is small."""
        self._options = sources.options(precision)
        self._modules: dict[tuple[str, bool], Any] = {}
        self._kernels: dict[tuple[str, str, bool], Any] = {}
        self._rehearsing = False

    def __call__(
        self,
        file: str,
        kernel: str,
        grid: Grid,
        block: Grid,
        *arguments: Any,
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Launches `kernel` of `file`. Arguments: device arrays, NumPy scalars of the parameters' types, None (null).

        More than 48 KiB of dynamic shared memory is asked for by `shared_bytes` alone. Thread blocks of a `cooperative`
        launch run at once; there may be `most_blocks` of them.
        """
        self.stream.use()  # another launcher may have taken the thread
        function = self._function(file, kernel, shared_bytes, cooperative)
        for argument in arguments:
            assert type(argument) not in (int, float), f"{kernel}: {argument!r} has no C type"
        if not self._rehearsing:
            self.num_launches += 1
            pointers = tuple(NULL if argument is None else argument for argument in arguments)
            function(grid, block, pointers, shared_mem=shared_bytes)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of zeros on the device."""
        self.stream.use()
        return cupy.zeros(shape, dtype)  # type: ignore[no-any-return]

    def from_host(self, values: Array) -> Array:
        """A copy of `values` on the device."""
        self.stream.use()
        return cupy.asarray(values)  # type: ignore[no-any-return]

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work` as a CUDA graph. A rehearsal before loads all kernels and makes all scratch, which a capture forbids."""
        self.stream.use()
        self._rehearsing = True
        try:
            work()
        finally:
            self._rehearsing = False
        self.stream.begin_capture()
        try:
            work()
        finally:
            graph = self.stream.end_capture()

        def replay() -> None:
            graph.launch(self.stream)

        # The graph knows addresses only: what `work` holds must live as long as it does.
        replay.work = work  # type: ignore[attr-defined]
        return replay

    def most_blocks(self, file: str, kernel: str, threads: int) -> int:
        """Returns how many thread blocks of so many threads a cooperative launch may have; 0: the device has none such."""
        attributes = cupy.cuda.Device().attributes
        if not attributes["CooperativeLaunch"]:
            return 0
        function = self._function(file, kernel, 0, cooperative=True)
        at_once: int = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(function.kernel.ptr, threads, 0)
        return at_once * int(attributes["MultiProcessorCount"])

    def _function(self, file: str, kernel: str, shared_bytes: int, cooperative: bool) -> Any:
        key = file, kernel, cooperative
        if key not in self._kernels:
            module = self._modules.get((file, cooperative))
            if module is None:
                module = cupy.RawModule(
                    code=sources.joined(file), options=self._options, enable_cooperative_groups=cooperative
                )
                self._modules[file, cooperative] = module
            function = self._kernels[key] = module.get_function(kernel)
            if shared_bytes > 48 * 1024:
                function.max_dynamic_shared_size_bytes = shared_bytes
        return self._kernels[key]


def check(array: Array, dtype: DTypeLike) -> None:
    """Kernels look neither at types nor at strides."""
    assert array.dtype == dtype, f"dtype {array.dtype}, wanted {dtype}"
    assert array.flags.c_contiguous, "not contiguous"


def by_fours(vector: Array) -> tuple[Grid, Grid]:
    """Grid and block of a kernel whose threads take four neighbouring elements each."""
    return (count_of(vector.size, 4 * THREADS),), (THREADS,)


def count_of(size: int, part: int) -> int:
    """Number of parts that hold `size`: ceil(size / part)."""
    return -(-size // part)
