"""A `nvmath.bindings.cublas` over the emulator's memory: `gemm_ex` by its column-major definition, in NumPy."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator import dense_cases, fake_device

Operation = IntEnum("Operation", {"N": 0, "T": 1})
Math = IntEnum("Math", {"DEFAULT_MATH": 0, "DISALLOW_REDUCED_PRECISION_REDUCTION": 16})
AtomicsMode = IntEnum("AtomicsMode", {"NOT_ALLOWED": 0, "ALLOWED": 1})
ComputeType = IntEnum("ComputeType", {"COMPUTE_32F": 68, "COMPUTE_32F_FAST_TF32": 77})
GemmAlgo = IntEnum("GemmAlgo", {"DEFAULT": -1})
DTYPES = {0: ("float32", np.float32), 2: ("float16", np.float16), 14: ("bfloat16", np.uint16)}


class cuBLASError(Exception):  # noqa: N801  nvmath's name
    """The error that the bindings raise."""


class Library:
    """One handle, and a record of how it was set up: (name of the call, its last argument)."""

    cuBLASError = cuBLASError  # noqa: N815

    def __init__(self, version: int) -> None:
        self.version = version
        self.stream = 0
        self.calls: list[tuple[str, int]] = []

    def create(self) -> int:
        return 7

    def get_version(self, handle: int) -> int:
        assert handle == 7
        return self.version

    def set_stream(self, handle: int, stream: int) -> None:
        self._record(handle, "stream", stream)
        self.stream = stream

    def set_workspace(self, handle: int, workspace: int, size: int) -> None:
        assert workspace % 256 == 0
        self._record(handle, "workspace", size)

    def set_math_mode(self, handle: int, mode: int) -> None:
        self._record(handle, "math", mode)

    def set_atomics_mode(self, handle: int, mode: int) -> None:
        self._record(handle, "atomics", mode)

    def gemm_ex(self, handle: int, *arguments: int) -> None:
        """C (m, n) = alpha op(A) (m, k) op(B) (k, n) + beta C, all column-major, when the stream comes to it."""
        assert len(arguments) == 18
        turn_a, turn_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algorithm = (
            arguments
        )
        assert algorithm == GemmAlgo.DEFAULT
        self._record(handle, "gemm", compute)
        factors = [ctypes.c_float.from_address(pointer).value for pointer in (alpha, beta)]

        def work() -> None:
            left = matrix(a, a_type, *((k, m) if turn_a else (m, k)), lda, compute)
            right = matrix(b, b_type, *((n, k) if turn_b else (k, n)), ldb, compute)
            product = factors[0] * (left.T if turn_a else left) @ (right.T if turn_b else right)
            out = columns(c, DTYPES[c_type][1], m, n, ldc)
            out[...] = product if factors[1] == 0 else product + factors[1] * out

        fake_device.Stream.by_ptr[self.stream].enqueue(work)

    def _record(self, handle: int, name: str, value: int) -> None:
        assert handle == 7
        self.calls.append((name, int(value)))


def columns(address: int, dtype: Any, num_rows: int, num_columns: int, pitch: int) -> NDArray[Any]:
    """Device memory as a column-major matrix."""
    assert pitch >= num_rows
    itemsize = np.dtype(dtype).itemsize
    size = ((num_columns - 1) * pitch + num_rows) * itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.ndarray((num_rows, num_columns), dtype, memory, strides=(itemsize, pitch * itemsize))


def matrix(address: int, data_type: int, num_rows: int, num_columns: int, pitch: int, compute: int) -> NDArray[Any]:
    precision, dtype = DTYPES[data_type]
    values = columns(address, dtype, num_rows, num_columns, pitch)
    if compute == ComputeType.COMPUTE_32F_FAST_TF32:
        values = dense_cases.to_tf32(np.ascontiguousarray(values))
    return dense_cases.load(np.ascontiguousarray(values), precision)


@contextmanager
def install(version: int = 130002) -> Iterator[Library]:
    """Makes `import nvmath.bindings.cublas` find it; `version` as cuBLAS counts, 130002 for 13.0.2."""
    library = Library(version)
    enums = SimpleNamespace(
        Operation=Operation, Math=Math, AtomicsMode=AtomicsMode, ComputeType=ComputeType, GemmAlgo=GemmAlgo
    )
    made = {name: ModuleType(name) for name in ("nvmath", "nvmath.bindings", "nvmath.bindings.cublas")}
    names = ("create", "get_version", "set_stream", "set_workspace", "set_math_mode", "set_atomics_mode", "gemm_ex")
    vars(made["nvmath.bindings.cublas"]).update(vars(enums) | {name: getattr(library, name) for name in names})
    made["nvmath"].__path__ = made["nvmath.bindings"].__path__ = []  # type: ignore[attr-defined]
    hidden = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield library
    finally:
        for name, module in hidden.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
