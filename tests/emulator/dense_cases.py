"""The dense layer's ops on the emulator, beside their formulas in float64 with a bound for what float32 sums may lose."""

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.cuda import sources
from emulator import compiler, fake_cupy, launcher

Array = NDArray[Any]

UNIT = 2.0**-24
"""The largest relative error of rounding to float32."""
VALUE_UNIT = {"float32": UNIT, "tf32": UNIT, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SMALLEST = {"float32": 2.0**-149, "tf32": 2.0**-149, "float16": 2.0**-25, "bfloat16": 2.0**-133}
ACTIVATE = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "identity": lambda z: z,
}
SLOPE = {
    "relu": lambda y: (y > 0).astype(np.float64),
    "tanh": lambda y: 1 - y**2,
    "sigmoid": lambda y: y * (1 - y),
    "identity": np.ones_like,
}


class Case(NamedTuple):
    """A layer, its rows, and how they are cut."""

    num_rows: int
    micro_batch: int
    num_inputs: int
    num_outputs: int
    activation: str = "relu"

    @property
    def num_micro_batches(self) -> int:
        return -(-self.num_rows // self.micro_batch)


class StrayWriteError(Exception):
    """A kernel changed what an op does not own."""


class Data(NamedTuple):
    """The inputs of a case, in the precision's storage type."""

    x: Array
    weight: Array
    bias: Array
    dout: Array


class Results(NamedTuple):
    """The outputs of the three ops."""

    out: Array
    dweight: Array
    dbias: Array
    dx: Array


def to_tf32(values: Array) -> Array:
    """10 mantissa bits, ties away from zero."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def store(values: Array, precision: str) -> Array:
    if precision == "float16":
        return values.astype(np.float16)
    values = values.astype(np.float32)
    if precision != "bfloat16":
        return values
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def load(values: Array, precision: str) -> Array:
    if precision == "bfloat16" and values.dtype == np.uint16:
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float64)


def data(case: Case, precision: str, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((case.num_rows, case.num_inputs))
    if case.activation != "identity":
        x = ACTIVATE[case.activation](x)
    weight = rng.standard_normal((case.num_inputs, case.num_outputs)) / np.sqrt(case.num_inputs)
    dout = rng.standard_normal((case.num_rows, case.num_outputs))
    bias = rng.standard_normal(case.num_outputs).astype(np.float32)
    return Data(store(x, precision), store(weight, precision), bias, store(dout, precision))


def uneven(case: Case, precision: str) -> Data:
    """Values over several orders of magnitude: sums in another order have other bits."""
    given = data(case, precision, seed=5)
    if precision == "bfloat16":
        return given
    rng = np.random.default_rng(6)
    scaled = ((array * 4.0 ** rng.integers(-3, 3, array.shape)).astype(array.dtype) for array in given)
    return Data(*scaled)


def sliced_sum(left: Array, right: Array) -> Array:
    """left (M, n) right (n, N): eight slices of n, whole sixteens, each one chain of fused multiply-adds from +0."""
    length = left.shape[1]
    step = -(-length // 128) * 16
    total: Array | None = None
    for first in range(0, length, step):
        part = np.zeros((left.shape[0], right.shape[1]), np.float32)
        for k in range(first, min(first + step, length)):
            # A product of float32 is exact in float64.
            part = (left[:, k : k + 1].astype(np.float64) * right[k].astype(np.float64) + part).astype(np.float32)
        total = part if total is None else total + part
    assert total is not None
    return total


@contextmanager
def device() -> Iterator[SimpleNamespace]:
    """The binding's modules over a fake CuPy, imported for this alone."""
    names = {"cuda_launch": "launcher", "cuda_blas": "cublas", "cuda_dense": "dense"}
    modules = {name: f"ddpgd.kernels.cuda.{module}" for name, module in names.items()}
    with fake_cupy.install() as cupy:
        hidden = {module: sys.modules.pop(module, None) for module in modules.values()}
        try:
            yield SimpleNamespace(
                cupy=cupy, **{name: importlib.import_module(module) for name, module in modules.items()}
            )
        finally:
            for name, module in hidden.items():
                sys.modules.pop(name, None)
                if module is not None:
                    sys.modules[name] = module


def compile_ahead(units: Iterable[tuple[str, str]]) -> None:
    """Compiles texts, each for a precision, side by side, before tests ask for one after the other."""
    compiler.scheduler()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda unit: launcher.load(unit[0], sources.options(unit[1])), units))


def put(cupy: ModuleType, values: Array) -> Any:
    array = cupy.empty(values.shape, values.dtype)
    array.set(np.ascontiguousarray(values))
    return array


def run(cupy: ModuleType, dense: Any, case: Case, given: Data) -> Results:
    """All three ops, gradients in windows of rows whose other words must stay as they are."""
    x, weight, bias, dout = (put(cupy, array) for array in given)
    value = np.float32 if case.activation == "identity" else given.x.dtype
    out, dx = (cupy.empty(shape, value) for shape in ((case.num_rows, case.num_outputs), x.shape))
    size = case.num_inputs * case.num_outputs
    rows = put(cupy, np.full((case.num_micro_batches, size + case.num_outputs + 5), 7.5, np.float32))
    dweight = rows[:, 2 : 2 + size].reshape(case.num_micro_batches, case.num_inputs, case.num_outputs)
    dbias = rows[:, 2 + size : 2 + size + case.num_outputs]
    dense.forward(x, weight, bias, case.activation, case.micro_batch, out)
    dense.backward_params(x, dout, case.micro_batch, dweight, dbias)
    dense.backward_input(dout, weight, x, case.activation, case.micro_batch, dx)
    host = rows.get()
    if not (host[:, :2] == 7.5).all() or not (host[:, 2 + size + case.num_outputs :] == 7.5).all():
        raise StrayWriteError("words before or behind the gradient were written")
    shape = (case.num_micro_batches, case.num_inputs, case.num_outputs)
    return Results(out.get(), host[:, 2 : 2 + size].reshape(shape), host[:, 2 + size : -3], dx.get())


def errors(case: Case, precision: str, given: Data, got: Results) -> dict[str, float]:
    """For each result its largest error as a part of what rounding may cost: below 1 where all is well."""
    factor = (
        (lambda values: to_tf32(values).astype(np.float64)) if precision == "tf32" else (lambda v: load(v, precision))
    )
    x, weight, dout = (factor(array) for array in (given.x, given.weight, given.dout))
    y = load(given.x, precision)
    exact_dout = load(given.dout, precision)

    def ratio(values: Array, exact: Array, magnitude: Array, length: int, unit: float) -> float:
        if values.size == 0:
            return 0.0
        bound = (length / 8 + 30) * UNIT * magnitude + 2 * unit * np.abs(exact) + 2 * SMALLEST[precision] + 8 * UNIT
        return float(np.nan_to_num(np.abs(load(values, precision) - exact) / bound, nan=np.inf).max())

    stored = VALUE_UNIT[precision]
    z = x @ weight + given.bias
    magnitude = np.abs(x) @ np.abs(weight) + np.abs(given.bias)
    unit = UNIT if case.activation == "identity" else stored
    found = {"out": ratio(got.out, ACTIVATE[case.activation](z), magnitude, case.num_inputs, unit)}
    slope = SLOPE[case.activation](y)
    magnitude = np.abs(dout) @ np.abs(weight.T)
    found["dx"] = ratio(got.dx, dout @ weight.T * slope, magnitude, case.num_outputs, unit)
    for g in range(case.num_micro_batches):
        rows = slice(g * case.micro_batch, (g + 1) * case.micro_batch)
        length = len(x[rows])
        dweight = ratio(got.dweight[g], x[rows].T @ dout[rows], np.abs(x[rows]).T @ np.abs(dout[rows]), length, UNIT)
        sums = exact_dout[rows]
        dbias = ratio(got.dbias[g], sums.sum(axis=0), np.abs(sums).sum(axis=0), length, UNIT)
        found["dweight"] = max(found.get("dweight", 0.0), dweight)
        found["dbias"] = max(found.get("dbias", 0.0), dbias)
    return found
