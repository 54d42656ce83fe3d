"""The products of a dense layer by cuBLAS: one call a micro-batch, so that its bits depend on its own rows alone."""

import importlib
from functools import partial
from typing import Any

import cupy
import numpy as np

from ddpgd.kernels.cuda.cublas_lt import DATA_TYPES, FLOAT32, IDENTITY, RELU, address, open_lt
from ddpgd.kernels.cuda.launcher import Launcher, by_fours
from ddpgd.kernels.device_ops import Array

FILE = "dense_epilogue.cu"
BLOCK = (256,)
WORKSPACE_BYTES = 32 << 20


def open_blas(launch: Launcher, precision: str) -> "Blas | None":
    """Opens cuBLAS; None where nvmath-python or the library is not installed, or does not start.

    Ranks compare what they opened before a run starts, see `Machine.reaching`.
    """
    try:
        library = importlib.import_module("nvmath.bindings.cublas")
    except (ImportError, OSError):
        return None
    try:
        handle = library.create()
    except (RuntimeError, OSError, library.cuBLASError):
        return None
    return Blas(launch, precision, library, handle)


class Blas:
    """The dense ops by a library; `Dense` has checked what it is given.

    cuBLAS is column-major: it computes the transpose of a row-major product, from its factors in reverse. Where cublasLt has a
    kernel with bias and activation, a forward product is one launch.
    """

    def __init__(self, launch: Launcher, precision: str, library: Any, handle: int) -> None:
        self._launch = launch
        self._precision = precision
        self._start = partial(launch, FILE, precision=precision)
        number = int(library.get_version(handle))
        self.name = f"cuBLAS {number // 10000}.{number // 100 % 100}.{number % 100}"
        self._library = library
        self._handle = handle
        self._data_type = DATA_TYPES[precision]
        # A stream takes the workspace away, so it comes first. A captured graph must not share the library's own.
        library.set_stream(handle, launch.stream.ptr)
        self._workspace = cupy.empty(WORKSPACE_BYTES, np.uint8)
        library.set_workspace(handle, address(self._workspace), WORKSPACE_BYTES)
        modes = library.Math
        library.set_math_mode(handle, int(modes.DEFAULT_MATH) | int(modes.DISALLOW_REDUCED_PRECISION_REDUCTION))
        library.set_atomics_mode(handle, int(library.AtomicsMode.NOT_ALLOWED))
        compute_types = library.ComputeType
        self._compute_type = int(
            compute_types.COMPUTE_32F_FAST_TF32 if precision == "tf32" else compute_types.COMPUTE_32F
        )
        self._one = np.ones(1, np.float32)
        self._zero = np.zeros(1, np.float32)
        self._scratches: dict[tuple[int, ...], Array] = {}
        self._lt = open_lt(launch, precision, self._compute_type, self._workspace)
        if self._lt:
            self.name += " and cublasLt"

    def forward(self, x: Array, weight: Array, bias: Array, activation: int, micro_batch: int, out: Array) -> None:
        parts = [slice(first, min(first + micro_batch, len(x))) for first in range(0, len(x), micro_batch)]
        lt = self._lt.forward if self._lt else _no_product
        apart = [rows for rows in parts if not lt(x[rows], weight, bias, activation, out[rows])]
        if not apart:
            return
        sums = self._sums(out)
        for rows in apart:
            self._multiply(x[rows], False, weight, False, sums[rows])
        # All, all but the last, or the last alone, which has another shape where it is shorter.
        rows = slice(apart[0].start, apart[-1].stop)
        sums, outputs = sums[rows], out[rows]
        sizes = np.int64(outputs.size), np.int32(out.shape[1])
        self._start("activate_sums", *by_fours(outputs), sums, bias, outputs, *sizes, np.int32(activation))

    def backward_params(self, x: Array, dout: Array, micro_batch: int, dweight: Array, dbias: Array) -> None:
        num_rows, num_outputs = dout.shape
        for g, first in enumerate(range(0, num_rows, micro_batch)):
            rows = slice(first, first + micro_batch)
            self._multiply(x[rows], True, dout[rows], False, dweight[g])
        sizes = map(np.int32, (num_rows, micro_batch, num_outputs))
        grid = (-(-num_outputs // 32), dbias.shape[0])
        self._start("sum_columns", grid, BLOCK, dout, dbias, *sizes, np.int64(dbias.strides[0] // 4))

    def backward_input(
        self, dout: Array, weight: Array, x: Array, activation: int, micro_batch: int, dx: Array
    ) -> None:
        # bfloat16 ends where float32 does, so the library may round what relu's slope makes 0; float16 could overflow.
        rounds = self._precision == "bfloat16" and activation == RELU
        sums = dx if rounds else self._sums(dx)
        for first in range(0, x.shape[0], micro_batch):
            rows = slice(first, first + micro_batch)
            self._multiply(dout[rows], False, weight, True, sums[rows])
        if rounds:
            self._start("keep_where_active", *by_fours(dx), x, dx, np.int64(dx.size))
        elif activation != IDENTITY:
            self._start("multiply_slope", *by_fours(dx), sums, x, dx, np.int64(dx.size), np.int32(activation))

    def _multiply(self, left: Array, turn_left: bool, right: Array, turn_right: bool, out: Array) -> None:
        """out = left right, row-major, either transposed first."""
        normal, turned = int(self._library.Operation.N), int(self._library.Operation.T)
        arguments = (
            *(self._handle, turned if turn_right else normal, turned if turn_left else normal),
            *(out.shape[1], out.shape[0], left.shape[0] if turn_left else left.shape[1], self._one.ctypes.data),
            *(address(right), self._data_type, right.shape[1]),
            *(address(left), self._data_type, left.shape[1], self._zero.ctypes.data),
            *(address(out), FLOAT32 if out.dtype == np.float32 else self._data_type, out.shape[1]),
            *(self._compute_type, int(self._library.GemmAlgo.DEFAULT)),
        )
        # In a rehearsal too: the library loads its kernels at the first call of a shape, which a capture forbids.
        self._library.gemm_ex(*arguments)
        self._launch.num_launches += 1

    def _sums(self, out: Array) -> Array:
        """The array for a product's sums: `out` itself, or scratch if it has 16 bits."""
        if out.dtype == np.float32:
            return out
        if out.shape not in self._scratches:
            self._scratches[out.shape] = cupy.empty(out.shape, np.float32)
        return self._scratches[out.shape]


def _no_product(*_: Any) -> bool:
    """Stands in for `BlasLt.forward`."""
    return False
