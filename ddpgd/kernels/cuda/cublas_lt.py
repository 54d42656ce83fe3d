"""Products with bias and activation in one kernel of cublasLt, where it has such a kernel."""

import importlib
import math
from typing import Any, NamedTuple

import numpy as np

from ddpgd.kernels.cuda.launcher import Launcher
from ddpgd.kernels.device_ops import Array

RELU, IDENTITY = 0, 3
"""The numbers of activations, as in `activation.cuh`."""
EPILOGUES = {RELU: "RELU_BIAS", IDENTITY: "BIAS"}
"""The names that cublasLt has for a bias and an activation after it."""
ALIGNMENT = 16
"""Bytes, of a bias; `Dense` sees that matrices have it."""

# cudaDataType
FLOAT32 = 0
DATA_TYPES = {"float32": FLOAT32, "tf32": FLOAT32, "float16": 2, "bfloat16": 14}


def address(array: Any) -> int:
    """The address of a device array."""
    return int(array.data.ptr)


def open_lt(launch: Launcher, precision: str, compute_type: int, workspace: Array) -> "BlasLt | None":
    """Opens cublasLt; None where nvmath-python or the library does not have it."""
    try:
        library = importlib.import_module("nvmath.bindings.cublasLt")
    except (ImportError, OSError):
        return None
    try:
        handle = library.create()
    except (RuntimeError, OSError, library.cuBLASLtError):
        return None
    return BlasLt(launch, precision, compute_type, workspace, library, handle)


class Plan(NamedTuple):
    """Descriptors of an operation and of its matrices weight, x and out, and what was found for them: an algorithm."""

    operation: int
    matrices: tuple[int, ...]
    found: Any


class BlasLt:
    """out = activation(x weight + bias) in float32 in one launch, for `Blas.forward`, which has checked what it is given.

    An algorithm is asked for once for each shape, and depends on nothing else: neither on addresses nor on other calls.
    """

    def __init__(
        self, launch: Launcher, precision: str, compute_type: int, workspace: Array, library: Any, handle: int
    ) -> None:
        """`compute_type`: of cuBLAS. `workspace`: on the device, shared with cuBLAS on the launcher's first stream."""
        self._launch = launch
        self._library = library
        self._handle = handle
        self._compute_type = compute_type
        self._data_type = DATA_TYPES[precision]
        self._workspace = workspace
        self._stream = launch.stream.ptr
        self._one = np.ones(1, np.float32)
        self._zero = np.zeros(1, np.float32)
        self._plans: dict[tuple[int, ...], Plan | None] = {}

    def forward(self, x: Array, weight: Array, bias: Array, activation: int, out: Array) -> bool:
        """Fills out (B, N) from x (B, K), weight (K, N) and bias (N,), and returns True; or False: there is no such kernel.

        Of 16 bits there is none: the bias would have to be rounded too.
        """
        if activation not in EPILOGUES or out.dtype != np.float32 or address(bias) % ALIGNMENT:
            return False
        key = *x.shape, weight.shape[1], activation
        if key not in self._plans:
            self._plans[key] = self._plan(x, weight, EPILOGUES[activation], out)
        plan = self._plans[key]
        if plan is None:
            return False
        self._multiply(plan, x, weight, bias, out)
        self._launch.num_launches += 1
        return True

    def _multiply(self, plan: Plan, x: Array, weight: Array, bias: Array, out: Array) -> None:
        self._set(plan.operation, self._library.MatmulDescAttribute.BIAS_POINTER, address(bias))
        of_weight, of_x, of_out = plan.matrices
        factors, place = (address(weight), of_weight, address(x), of_x), (address(out), of_out)
        algorithm, workspace = plan.found.ptr, (address(self._workspace), self._workspace.nbytes)
        one, zero = self._one.ctypes.data, self._zero.ctypes.data
        where = *workspace, self._stream
        self._library.matmul(self._handle, plan.operation, one, *factors, zero, *place, *place, algorithm, *where)

    def _plan(self, x: Array, weight: Array, epilogue: str, out: Array) -> Plan | None:
        """Returns the plan of a product, column-major: the transpose of `out` from its factors in reverse; or None.

        `out` is overwritten.
        """
        library, of_operation = self._library, self._library.MatmulDescAttribute
        operation = library.matmul_desc_create(self._compute_type, FLOAT32)
        self._set(operation, of_operation.EPILOGUE, int(library.Epilogue[epilogue]))
        self._set(operation, of_operation.BIAS_POINTER, ALIGNMENT)  # an address that is aligned as all are, and no more
        types = self._data_type, self._data_type, FLOAT32
        matrices = tuple(
            library.matrix_layout_create(data_type, array.shape[1], array.shape[0], array.shape[1])
            for data_type, array in zip(types, (weight, x, out), strict=True)
        )
        plan, preference = Plan(operation, matrices, library.MatmulHeuristicResult(1)), self._preference(weight, x, out)
        count = np.zeros(1, np.int32)
        told = *matrices, matrices[-1], preference, 1, plan.found.ptr, count.ctypes.data
        try:
            library.matmul_algo_get_heuristic(self._handle, operation, *told)
            if count[0] and int(plan.found.state) == 0 and self._keeps_nan(plan, x, weight, out):
                return plan
        except library.cuBLASLtError:
            pass  # no algorithm, or none that runs
        finally:
            library.matmul_preference_destroy(preference)
        library.matmul_desc_destroy(operation)
        for matrix in matrices:
            library.matrix_layout_destroy(matrix)
        return None

    def _keeps_nan(self, plan: Plan, x: Array, weight: Array, out: Array) -> bool:
        """Returns whether a NaN comes out as one: max(x, 0) may make 0 of it, and hide it from the loss."""
        nans = self._launch.from_host(np.full(out.shape[1], np.nan, np.float32))
        self._multiply(plan, x, weight, nans, out)
        self._launch.stream.synchronize()
        return bool(np.isnan(out[0].get()).all())

    def _preference(self, weight: Array, x: Array, out: Array) -> int:
        """Returns what is asked of an algorithm: sums in one order alone, and rows that begin where these may."""
        library, names = self._library, self._library.MatmulPreferenceAttribute
        preference: int = library.matmul_preference_create()
        wanted = {
            names.MAX_WORKSPACE_BYTES: self._workspace.nbytes,
            names.REDUCTION_SCHEME_MASK: int(library.ReductionScheme.COMPUTE_TYPE),
        }
        for letter, array in zip("ABCD", (weight, x, out, out), strict=True):
            wanted[names[f"MIN_ALIGNMENT_{letter}_BYTES"]] = math.gcd(ALIGNMENT, array.shape[1] * array.itemsize)
        for name, value in wanted.items():
            words = np.array([value], library.get_matmul_preference_attribute_dtype(name))
            library.matmul_preference_set_attribute(preference, int(name), words.ctypes.data, words.nbytes)
        return preference

    def _set(self, operation: int, name: Any, value: int) -> None:
        words = np.array([value], self._library.get_matmul_desc_attribute_dtype(name))
        self._library.matmul_desc_set_attribute(operation, int(name), words.ctypes.data, words.nbytes)
