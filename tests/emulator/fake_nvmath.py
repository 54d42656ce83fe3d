"""`nvmath.bindings.cublas` and `cublasLt` over the emulator's memory: products by their column-major definitions, in NumPy."""

import ctypes
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import ModuleType
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


Epilogue = IntEnum("Epilogue", {"BIAS": 4, "RELU_BIAS": 6})
ReductionScheme = IntEnum("ReductionScheme", {"NONE": 0, "INPLACE": 1, "COMPUTE_TYPE": 2})
OPERATION = {"EPILOGUE": np.uint32, "BIAS_POINTER": np.int64}
PREFERENCE = {
    "MAX_WORKSPACE_BYTES": np.uint64,
    "REDUCTION_SCHEME_MASK": np.uint32,
    **{f"MIN_ALIGNMENT_{letter}_BYTES": np.uint32 for letter in "ABCD"},
}
MatmulDescAttribute = IntEnum("MatmulDescAttribute", list(OPERATION))
MatmulPreferenceAttribute = IntEnum("MatmulPreferenceAttribute", list(PREFERENCE))


class cuBLASError(Exception):  # noqa: N801  nvmath's name
    """The error that the bindings raise."""


class cuBLASLtError(Exception):  # noqa: N801  nvmath's name
    """The error that the bindings of cublasLt raise."""


class Library:
    """One handle, and a record of how it was set up: (name of the call, its last argument)."""

    cuBLASError = cuBLASError  # noqa: N815

    def __init__(self, version: int) -> None:
        self.version = version
        self.stream = 0
        self.calls: list[tuple[str, int]] = []
        self.lt: LtLibrary

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
            assert factors[1] == 0
            precision, dtype = DTYPES[c_type]
            out = columns(c, dtype, m, n, ldc)
            out[...] = product if dtype is np.float32 else dense_cases.store(product.astype(np.float32), precision)

        fake_device.Stream.by_ptr[self.stream].enqueue(work)

    def _record(self, handle: int, name: str, value: int) -> None:
        assert handle == 7
        self.calls.append((name, int(value)))


class MatmulHeuristicResult:
    """The bytes of one algorithm."""

    state = 0

    def __init__(self, size: int) -> None:
        assert size == 1
        self._words = np.zeros(8, np.uint64)
        self.ptr = int(self._words.ctypes.data)


class LtLibrary:
    """cublasLt: descriptors are numbers of `made`, until they are destroyed.

    `refused`: numbers of samples for which there is no algorithm; `failing`: for which there is one that does not run.
    `hides_nan`: its relu makes 0 of NaN. `asked`: the preferences of each algorithm that was asked for.
    """

    cuBLASLtError = cuBLASLtError  # noqa: N815

    def __init__(self, library: Library) -> None:
        self._library = library
        self.made: dict[int, dict[str, int]] = {}
        self.refused: set[int] = set()
        self.failing: set[int] = set()
        self._numbers = itertools.count(1)
        self.hides_nan = False
        self.asked: list[dict[str, int]] = []

    def create(self) -> int:
        return 8

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        assert scale_type == 0
        return self._make(compute=compute_type)

    def matrix_layout_create(self, data_type: int, rows: int, cols: int, pitch: int) -> int:
        return self._make(type=data_type, rows=rows, cols=cols, pitch=pitch)

    def matmul_preference_create(self) -> int:
        return self._make()

    def matmul_desc_destroy(self, number: int) -> None:
        del self.made[number]

    matrix_layout_destroy = matmul_preference_destroy = matmul_desc_destroy

    def get_matmul_desc_attribute_dtype(self, name: int) -> Any:
        return OPERATION[MatmulDescAttribute(name).name]

    def get_matmul_preference_attribute_dtype(self, name: int) -> Any:
        return PREFERENCE[MatmulPreferenceAttribute(name).name]

    def matmul_desc_set_attribute(self, number: int, name: int, pointer: int, size: int) -> None:
        self._set(number, MatmulDescAttribute(name).name, OPERATION, pointer, size)

    def matmul_preference_set_attribute(self, number: int, name: int, pointer: int, size: int) -> None:
        self._set(number, MatmulPreferenceAttribute(name).name, PREFERENCE, pointer, size)

    def matmul_algo_get_heuristic(
        self,
        handle: int,
        operation: int,
        a: int,
        b: int,
        c: int,
        d: int,
        preference: int,
        most: int,
        algo: int,
        count: int,
    ) -> None:
        assert (handle, most) == (8, 1)
        self._check(operation, a, b, c, d)
        self.asked.append(self.made[preference])
        if self.made[d]["cols"] in self.refused:
            raise cuBLASLtError("not supported")
        ctypes.c_int64.from_address(algo).value = operation
        ctypes.c_int32.from_address(count).value = 1

    def matmul(self, handle: int, operation: int, *arguments: int) -> None:
        """D = epilogue(alpha A B + beta C + bias), column-major, when the stream comes to it."""
        assert handle == 8
        alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm, workspace, _, stream = arguments
        assert ctypes.c_int64.from_address(algorithm).value == operation, "an algorithm of another product"
        assert workspace % 256 == 0
        assert [ctypes.c_float.from_address(pointer).value for pointer in (alpha, beta)] == [1, 0]
        assert (c, c_layout) == (d, d_layout)
        self._check(operation, a_layout, b_layout, c_layout, d_layout)
        told, out = dict(self.made[operation]), self.made[d_layout]
        if out["cols"] in self.failing:
            raise cuBLASLtError("not supported")
        layouts = self.made[a_layout], self.made[b_layout]
        self._library.calls.append(("matmul", told["compute"]))

        def work() -> None:
            left, right = (
                matrix(address, one["type"], one["rows"], one["cols"], one["pitch"], told["compute"])
                for address, one in zip((a, b), layouts, strict=True)
            )
            bias = columns(told["BIAS_POINTER"], np.float32, out["rows"], 1, out["rows"])
            sums = (left @ right).astype(np.float32) + bias
            relu = np.fmax if self.hides_nan else np.maximum
            values = relu(sums, 0) if told["EPILOGUE"] == Epilogue.RELU_BIAS else sums
            precision, dtype = DTYPES[out["type"]]
            into = columns(d, dtype, out["rows"], out["cols"], out["pitch"])
            into[...] = values if dtype is np.float32 else dense_cases.store(values, precision)

        fake_device.Stream.by_ptr[stream].enqueue(work)

    def _make(self, **told: int) -> int:
        number = next(self._numbers)
        self.made[number] = told
        return number

    def _set(self, number: int, name: str, dtypes: dict[str, Any], pointer: int, size: int) -> None:
        dtype = np.dtype(dtypes[name])
        assert size == dtype.itemsize
        self.made[number][name] = int(np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), dtype)[0])

    def _check(self, operation: int, a: int, b: int, c: int, d: int) -> None:
        left, right, out = (self.made[number] for number in (a, b, d))
        assert c == d
        assert (left["rows"], left["cols"], right["cols"]) == (out["rows"], right["rows"], out["cols"])
        assert out["type"] == 0, "a bias has the type of the results"
        assert self.made[operation]["EPILOGUE"] in list(Epilogue)


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
def install(version: int = 130002, has_lt: bool = True) -> Iterator[Library]:
    """Makes `import nvmath.bindings.cublas` find it; `version` as cuBLAS counts, 130002 for 13.0.2. `has_lt`: cublasLt, too."""
    library = Library(version)
    library.lt = LtLibrary(library)
    faces = {
        "nvmath.bindings.cublas": (library, (Operation, Math, AtomicsMode, ComputeType, GemmAlgo)),
        "nvmath.bindings.cublasLt": (
            library.lt,
            (Epilogue, ReductionScheme, MatmulDescAttribute, MatmulPreferenceAttribute, MatmulHeuristicResult),
        ),
    }
    made: dict[str, Any] = {name: ModuleType(name) for name in ("nvmath", "nvmath.bindings", *faces)}
    for name, (face, types) in faces.items():
        public = {each: getattr(face, each) for each in dir(face) if not each.startswith("_")}
        vars(made[name]).update({one.__name__: one for one in types} | public)
    made["nvmath"].__path__ = made["nvmath.bindings"].__path__ = []
    if not has_lt:
        made["nvmath.bindings.cublasLt"] = None
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
