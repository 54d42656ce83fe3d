"""Launches of CUDA kernels on a stream, or beside it on a second one.

Kernels are compiled at first use, launches checked, and rehearsed before they are captured.
"""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import cupy
import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.cuda import sources
from ddpgd.kernels.device_ops import Array

Grid = tuple[int, ...]
Options = tuple[str, ...]
NULL = np.intp(0)
THREADS = 256
"""Of a block, where a kernel has no reason for another number."""
NUM_SMS = 132
"""Multiprocessors that grids are cut for: those of an H100."""
GRAPH_REPEATS = 8
"""Repeats of the same work in one CUDA graph."""
Work = Callable[[], None]
COMPILING = threading.Lock()
"""Held while kernels are compiled: launchers of other threads then find in CuPy's cache what they want as well."""


class Launch(NamedTuple):
    """A launch that was rehearsed; see `Launcher.__call__`."""

    kernel: str
    grid: Grid
    arguments: tuple[Any, ...]
    shared_bytes: int

    @property
    def num_blocks(self) -> int:
        """Number of thread blocks."""
        return math.prod(self.grid)


class Launcher:
    """The kernels of one precision, on one device and two streams of its own, of the thread that made it."""

    def __init__(self, precision: str) -> None:
        self._first, self._second = (cupy.cuda.Stream(non_blocking=True) for _ in ("first", "second"))
        self._forked, self._joined = (cupy.cuda.Event(disable_timing=True) for _ in ("forked", "joined"))
        self.stream: Any = self._first
        """The stream of what is launched now."""
        self.num_launches = 0
        """Of kernels, and calls of a library: what a step's price is made of where it is small."""
        self._precision = precision
        self._modules: dict[tuple[str, bool, Options], Any] = {}
        self._kernels: dict[tuple[str, str, bool, Options], Any] = {}
        self._rehearsed: list[Launch] | None = None

    def __call__(
        self,
        file: str,
        kernel: str,
        grid: Grid,
        block: Grid,
        *arguments: Any,
        shared_bytes: int = 0,
        cooperative: bool = False,
        defines: Options = (),
        precision: str = "",
    ) -> None:
        """Launches `kernel` of `file`. Arguments: device arrays, NumPy scalars of the parameters' types, None (null).

        More than 48 KiB of dynamic shared memory is asked for by `shared_bytes` alone. Thread blocks of a `cooperative`
        launch run at once; there may be `most_blocks` of them. `defines`: options of the compiler, beside the precision's.
        `precision`: another than the launcher's.
        """
        self.stream.use()  # another launcher may have taken the thread
        options = sources.options(precision or self._precision)
        function = self._function(file, kernel, shared_bytes, cooperative, (*options, *defines))
        for argument in arguments:
            assert type(argument) not in (int, float), f"{kernel}: {argument!r} has no C type"
        if self._rehearsed is not None:
            self._rehearsed.append(Launch(kernel, grid, arguments, shared_bytes))
            return
        self.num_launches += 1
        pointers = tuple(NULL if argument is None else argument for argument in arguments)
        function(grid, block, pointers, shared_mem=shared_bytes)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A context whose launches are on the second stream, after all on the first that came before; see `Ops.aside`."""
        self._forked.record(self._first)
        self._second.wait_event(self._forked)
        self._take(self._second)
        try:
            yield
        finally:
            self._take(self._first)

    def join(self) -> None:
        """Lets the first stream wait for the second."""
        self._joined.record(self._second)
        self._first.wait_event(self._joined)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of zeros on the device."""
        self.stream.use()
        return cupy.zeros(shape, dtype)  # type: ignore[no-any-return]

    def from_host(self, values: Array) -> Array:
        """A copy of `values` on the device."""
        self.stream.use()
        return cupy.asarray(values)  # type: ignore[no-any-return]

    def rehearse(self, work: Work) -> list[Launch]:
        """Returns the launches of `work`, which loads their kernels and makes all scratch, but launches nothing."""
        self.stream.use()
        rehearsed = self._rehearsed = []
        try:
            work()
        finally:
            self._rehearsed = None
        return rehearsed

    def capture(self, work: Work) -> Work:
        """`work` as a CUDA graph, after a rehearsal: a capture forbids to load kernels and to make scratch."""
        self.rehearse(work)
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

    @property
    def num_multiprocessors(self) -> int:
        """Multiprocessors of the device."""
        return int(cupy.cuda.Device().attributes["MultiProcessorCount"])

    def most_blocks(self, file: str, kernel: str, threads: int, shared_bytes: int = 0, defines: Options = ()) -> int:
        """Returns how many thread blocks a cooperative launch may have; 0: it cannot run on this device."""
        driver = cupy.cuda.driver
        if not cupy.cuda.Device().attributes["CooperativeLaunch"]:
            return 0
        try:
            options = *sources.options(self._precision), *defines
            function = self._function(file, kernel, shared_bytes, True, options)
        except driver.CUDADriverError:  # not so much shared memory
            return 0
        at_once: int = driver.occupancyMaxActiveBlocksPerMultiprocessor(function.kernel.ptr, threads, shared_bytes)
        return at_once * self.num_multiprocessors

    def _take(self, stream: Any) -> None:
        """Also what CuPy does by itself, as `fill`, is on `stream` from now on."""
        self.stream = stream
        stream.use()

    def _function(self, file: str, kernel: str, shared_bytes: int, cooperative: bool, options: Options) -> Any:
        key = file, kernel, cooperative, options
        if key not in self._kernels:
            module = self._modules.get((file, cooperative, options))
            if module is None:
                module = cupy.RawModule(
                    code=sources.joined(file),
                    options=options,
                    enable_cooperative_groups=cooperative,
                )
                self._modules[file, cooperative, options] = module
            with COMPILING:
                function = module.get_function(kernel)
            if shared_bytes > 48 * 1024:
                function.max_dynamic_shared_size_bytes = shared_bytes
            self._kernels[key] = function
        return self._kernels[key]


class GraphLoop:
    """Repeats of `work` as CUDA graphs, of one and of `GRAPH_REPEATS` each, which are captured when first needed."""

    def __init__(self, launch: Launcher, work: Work) -> None:
        self._launch = launch
        self._work = work

    def __call__(self, count: int) -> None:
        several, single = divmod(count, GRAPH_REPEATS)
        for _ in range(several):
            self._several()
        for _ in range(single):
            self._one()

    @cached_property
    def _one(self) -> Work:
        return self._launch.capture(self._work)

    @cached_property
    def _several(self) -> Work:
        def work() -> None:
            for _ in range(GRAPH_REPEATS):
                self._work()

        return self._launch.capture(work)


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
