"""Raw kernels of the fake CuPy: every argument is checked against the kernel's parameters, then the engine runs it."""

# ruff: noqa: ARG002  signatures are CuPy's

import ctypes
import itertools
import weakref
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from . import compiler, fake_device, launcher
from .fake_array import ndarray
from .fake_stream import CUDADriverError, current_device, get_current_stream, order

CUPY_OPTIONS = ("-ftz=true",)
"""What CuPy adds to every module's options: subnormal float32 operands and results count as zeros."""

# NumPy has no bfloat16: bindings keep its bits in uint16.
ELEMENTS = {"bfloat16": {"uint16"}, "float16": {"float16", "uint16"}, "uint16": {"uint16", "float16"}}


class CompileException(Exception):
    """The compiler's messages about a module's text."""

    def __init__(self, msg: str, source: str, name: str, options: tuple[str, ...], backend: str = "nvrtc") -> None:
        self.source, self.name, self.options, self.backend = source, name, options, backend
        super().__init__(msg)


class RawModule:
    """Kernels of one text, compiled when the first is asked for."""

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        name_expressions: Any = None,
        enable_cooperative_groups: bool = False,
        **_: Any,
    ) -> None:
        if code is None or path is not None or name_expressions is not None:
            raise TypeError("the fake CuPy takes `code` and options alone")
        if not isinstance(options, tuple):
            raise TypeError("options must be a tuple")
        self.code, self.options, self.backend = code, options, backend
        self.enable_cooperative_groups = enable_cooperative_groups

    def compile(self, log_stream: Any = None) -> launcher.Unit:
        try:
            return launcher.load(self.code, (*self.options, *CUPY_OPTIONS))
        except compiler.CompileError as error:
            raise CompileException(str(error), self.code, "raw_module.cu", self.options, self.backend) from None

    def get_function(self, name: str) -> "RawKernel":
        kernels = self.compile().kernels
        if name not in kernels:
            raise CUDADriverError(500, f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name} of {sorted(kernels)}")
        return RawKernel(kernels[name], self.enable_cooperative_groups)


class RawKernel:
    """A kernel to call with (grid, block, args, shared_mem=0, stream=None)."""

    by_ptr: ClassVar["weakref.WeakValueDictionary[int, RawKernel]"] = weakref.WeakValueDictionary()
    ptrs = itertools.count(1 << 20, 16)

    def __init__(self, kernel: launcher.Kernel, cooperative: bool = False) -> None:
        self._kernel = kernel
        self.enable_cooperative_groups = cooperative
        self.kernel = SimpleNamespace(ptr=next(self.ptrs))
        self.by_ptr[self.kernel.ptr] = self
        self.name = self.__name__ = kernel.name
        self.max_threads_per_block = min(kernel.max_threads, fake_device.MAX_THREADS)
        self._dynamic_limit = fake_device.SHARED_BYTES_DEFAULT

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._dynamic_limit

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, nbytes: int) -> None:
        if not 0 <= nbytes <= fake_device.SHARED_BYTES_LIMIT:
            raise CUDADriverError(1, f"CUDA_ERROR_INVALID_VALUE: invalid argument: {nbytes} bytes of shared memory")
        self._dynamic_limit = nbytes

    @property
    def attributes(self) -> dict[str, int]:
        names = ("max_threads_per_block", "max_dynamic_shared_size_bytes")
        return {name: getattr(self, name) for name in names} | {"num_regs": 32, "local_size_bytes": 0}

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None) -> None:
        kernel = self._kernel
        shape = three(grid, fake_device.MAX_GRID, f"grid of {self.name}")
        threads = three(block, fake_device.MAX_BLOCK, f"block of {self.name}")
        if threads[0] * threads[1] * threads[2] > self.max_threads_per_block:
            limit = self.max_threads_per_block
            raise CUDADriverError(1, f"CUDA_ERROR_INVALID_VALUE: {self.name} with block {threads}, but at most {limit}")
        if shared_mem > self._dynamic_limit:
            limit = self._dynamic_limit
            text = f"{self.name} with {shared_mem} bytes of dynamic shared memory, but at most {limit}"
            raise CUDADriverError(1, f"CUDA_ERROR_INVALID_VALUE: {text}")
        if self.enable_cooperative_groups:
            self._refuse_too_many(shape, threads, shared_mem)
        if len(args) != len(kernel.types):
            raise TypeError(f"{self.name} takes {len(kernel.types)} arguments {kernel.types}, got {len(args)}")
        # A graph keeps no array alive: what was freed before its launch is unmapped, and faults.
        used = {i: value._memory for i, value in enumerate(args) if isinstance(value, ndarray)}
        memories = {i: weakref.ref(memory) for i, memory in used.items()}
        values = [
            convert(value, kind, f"argument {position} of {self.name}")
            for position, (value, kind) in enumerate(zip(args, kernel.types, strict=True))
        ]

        def run() -> None:
            kernel.launch(shape, threads, values, shared_mem, order(), self.enable_cooperative_groups)
            for position, memory in memories.items():
                whole = memory()
                if whole is not None and not whole.slack_is_whole():
                    raise launcher.KernelError(f"{self.name} wrote past the end of argument {position}")

        (stream or get_current_stream()).enqueue(run, keep=used)

    def _refuse_too_many(self, grid: tuple[int, int, int], block: tuple[int, int, int], shared_mem: int) -> None:
        """CuPy itself warns, and launches fewer blocks of a one-dimensional grid; the driver refuses what does not fit."""
        blocks = grid[0] * grid[1] * grid[2]
        at_once = max_active_blocks(self.kernel.ptr, block[0] * block[1] * block[2], shared_mem)
        limit = at_once * fake_device.num_multiprocessors()
        if blocks > limit:
            text = f"{self.name} with {blocks} blocks, of which {limit} fit at once"
            raise CUDADriverError(720, f"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: {text}")


def max_active_blocks(func: int, block_size: int, dynamic_bytes: int) -> int:
    """Blocks of a kernel that a multiprocessor runs at once. Static shared memory is not counted, nor are registers."""
    kernel = RawKernel.by_ptr[func]
    if not 0 < block_size <= kernel.max_threads_per_block or dynamic_bytes > kernel.max_dynamic_shared_size_bytes:
        return 0
    by_threads = fake_device.THREADS_AT_ONCE // (-(-block_size // 32) * 32)
    by_shared = fake_device.SHARED_BYTES_AT_ONCE // (dynamic_bytes + fake_device.SHARED_BYTES_RESERVED)
    return min(by_threads, by_shared, fake_device.BLOCKS_AT_ONCE)


def three(sizes: Any, limits: tuple[int, int, int], what: str) -> tuple[int, int, int]:
    if not isinstance(sizes, tuple) or not all(isinstance(size, int | np.integer) for size in sizes):
        raise TypeError(f"{what} must be a tuple of integers, got {sizes!r}")
    # CuPy launches one block, or thread, where none is asked for.
    x, y, z = (*(max(1, int(size)) for size in sizes), 1, 1)[:3]
    if any(size > limit for size, limit in zip((x, y, z), limits, strict=True)):
        raise CUDADriverError(1, f"CUDA_ERROR_INVALID_VALUE: {what}: {sizes}, at most {limits}")
    return x, y, z


def convert(value: Any, kind: str, what: str) -> Any:
    """The bytes of one argument, or a TypeError where CUDA would read other bytes than were meant."""
    if isinstance(value, ndarray):
        return ctypes.c_void_p(pointer_of(value, kind, what))
    if kind.endswith("*"):
        if isinstance(value, np.intp | np.uintp):
            return ctypes.c_void_p(int(value))
        raise TypeError(f"{what}: {kind} wanted, got {type(value).__name__}; a null pointer is numpy.intp(0)")
    if not isinstance(value, np.generic) or value.dtype.name != kind:
        raise TypeError(f"{what}: numpy.{kind} wanted, got {type(value).__name__}")
    return (ctypes.c_uint8 * value.itemsize).from_buffer_copy(value.tobytes())


def pointer_of(value: ndarray, kind: str, what: str) -> int:
    if not kind.endswith("*"):
        raise TypeError(f"{what}: {kind} wanted, got an array")
    element, dtype = kind[:-1], value.dtype
    if element.startswith("struct"):
        fits = int(element.removeprefix("struct")) % dtype.itemsize == 0
    elif element.endswith("*"):
        fits = dtype.name in {"int64", "uint64"}
    else:
        fits = element == "void" or dtype.name in ELEMENTS.get(element, {element})
    if not fits:
        raise TypeError(f"{what}: {kind} wanted, got an array of {dtype}")
    if value._memory.device != current_device():
        raise ValueError(f"{what}: an array of device {value._memory.device} on device {current_device()}")
    pointer: int = value.data.ptr
    return pointer
