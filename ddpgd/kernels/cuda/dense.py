"""Dense layers on the device: which kernel computes a product, and its launch. Contracts: `ops.Ops`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddpgd.kernels.cuda.cublas import Blas, open_blas
from ddpgd.kernels.cuda.cublas_lt import address
from ddpgd.kernels.cuda.launcher import NUM_SMS, Launcher, count_of
from ddpgd.kernels.device_ops import Array

ACTIVATIONS = {"relu": 0, "tanh": 1, "sigmoid": 2, "identity": 3}
VALUE_DTYPES = {"float32": "float32", "tf32": "float32", "float16": "float16", "bfloat16": "uint16"}
Tile = tuple[int, int]
"""Rows and columns of a product that a block computes."""
TILES: tuple[Tile, ...] = ((16, 8), (16, 16), (32, 32), (64, 64), (128, 128))
NARROWEST = {"float32": 8, "tf32": 16, "float16": 16, "bfloat16": 16}

# How a product's factors lie: along the sum or across it.
LAYOUTS = {"forward": (True, False), "params": (False, False), "input": (True, True)}

BLOCK = (256,)
BLAS_FROM = 1 << 28
"""From how many multiplications of a micro-batch the library computes them, where there is one. Not yet measured."""


def pick_tile(precision: str, shapes: Sequence[tuple[int, int]], num_products: int = 1) -> Tile:
    """The tile that should be fastest for products of such rows and columns; no bit of the result depends on it.

    A block's cost grows with its outputs and with what it reads, which small tiles share less, and the multiprocessor with
    the most blocks is the last to finish: not yet measured.
    """

    def cost(tile: Tile) -> int:
        rows, columns = tile
        num_blocks = num_products * sum(count_of(m, rows) * count_of(n, columns) for m, n in shapes)
        return count_of(num_blocks, NUM_SMS) * (rows * columns + 32 * (rows + columns))

    return min((tile for tile in TILES if tile[1] >= NARROWEST[precision]), key=cost)


def shared_bytes(product: str, tile: Tile, precision: str) -> int:
    """The shared memory of a block, as `dense_tile.cuh` lays it out."""
    itemsize = np.dtype(VALUE_DTYPES[precision]).itemsize
    if precision == "float32":
        depth, spread, budget = 8 if tile[0] == 32 else 16, 0, 64 * 1024
    else:
        depth, spread, budget = (4 if tile[0] == 64 else 2) * 32 // itemsize, 8, 96 * 1024
    sides = zip(tile, LAYOUTS[product], strict=True)
    sizes = ((depth + 16 // itemsize) * side if along else depth * (side + spread) for side, along in sides)
    stage = sum(sizes) * itemsize * (8 if tile[0] <= 32 else 1)
    return stage * min(4, budget // stage)


class Dense:
    """The dense ops of one precision: own kernels, and a library, where there is one, for large products.

    Which of the two depends on the micro-batch and the layer alone; sums of own kernels, on the length of the sum alone.
    """

    def __init__(self, launch: Launcher, precision: str) -> None:
        self._launch = launch
        self._precision = precision
        self._value = np.dtype(VALUE_DTYPES[precision])
        self._blas = open_blas(launch, precision)
        self.products = self._blas.name if self._blas else "own kernels"

    def forward(self, x: Array, weight: Array, bias: Array, activation: str, micro_batch: int, out: Array) -> None:
        num_rows, num_inputs, num_outputs = self._check_product(x, weight, micro_batch)
        self._check(bias, (num_outputs,), np.float32)
        self._check(out, (num_rows, num_outputs), np.float32 if activation == "identity" else self._value)
        blas = self._library(micro_batch, num_inputs, num_outputs)
        if blas is not None:
            blas.forward(x, weight, bias, ACTIVATIONS[activation], micro_batch, out)
            return
        tile = self.tile([(num_rows, num_outputs)])
        grid = (count_of(num_rows, tile[0]), count_of(num_outputs, tile[1]))
        sizes = (num_rows, num_inputs, num_outputs, ACTIVATIONS[activation])
        self._start("forward", tile, grid, x, weight, bias, out, *map(np.int32, sizes))

    def backward_params(self, x: Array, dout: Array, micro_batch: int, dweight: Array, dbias: Array) -> None:
        (num_rows, num_inputs), num_outputs = x.shape, dout.shape[1]
        num_micro_batches = count_of(num_rows, micro_batch)
        self._check(x, (num_rows, num_inputs), self._value)
        self._check(dout, (num_rows, num_outputs), self._value)
        assert num_micro_batches <= 65535, f"{num_micro_batches} micro-batches are more than a grid is deep"
        self._check_windows(dweight, (num_micro_batches, num_inputs, num_outputs))
        self._check_windows(dbias, (num_micro_batches, num_outputs))
        blas = self._library(micro_batch, num_inputs, num_outputs)
        if blas is not None:
            blas.backward_params(x, dout, micro_batch, dweight, dbias)
            return
        tile = self.tile([(num_inputs, num_outputs)], num_micro_batches)
        grid = (count_of(num_inputs, tile[0]), count_of(num_outputs, tile[1]), num_micro_batches)
        sizes = map(np.int32, (num_rows, micro_batch, num_inputs, num_outputs))
        strides = (np.int64(array.strides[0] // 4) for array in (dweight, dbias))
        self._start("params", tile, grid, x, dout, dweight, dbias, *sizes, *strides)

    def backward_input(
        self, dout: Array, weight: Array, x: Array, activation: str, micro_batch: int, dx: Array
    ) -> None:
        num_rows, num_inputs, num_outputs = self._check_product(x, weight, micro_batch)
        self._check(dout, (num_rows, num_outputs), self._value)
        self._check(dx, (num_rows, num_inputs), np.float32 if activation == "identity" else self._value)
        assert address(dx) != address(x), "dx must not be x"
        blas = self._library(micro_batch, num_inputs, num_outputs)
        if blas is not None:
            blas.backward_input(dout, weight, x, ACTIVATIONS[activation], micro_batch, dx)
            return
        tile = self.tile([(num_rows, num_inputs)])
        grid = (count_of(num_rows, tile[0]), count_of(num_inputs, tile[1]))
        sizes = (num_rows, num_inputs, num_outputs, ACTIVATIONS[activation])
        self._start("input", tile, grid, dout, weight, x, dx, *map(np.int32, sizes))

    def tile(self, shapes: Sequence[tuple[int, int]], num_products: int = 1) -> Tile:
        """Returns the tile for products of such rows and columns; see `pick_tile`."""
        return pick_tile(self._precision, shapes, num_products)

    def uses_library(self, micro_batch: int, num_inputs: int, num_outputs: int) -> bool:
        """True if the library computes the products of such a layer."""
        return self._library(micro_batch, num_inputs, num_outputs) is not None

    def shared_bytes(self, product: str, tile: Tile) -> int:
        """Returns the dynamic shared memory of a block; see `shared_bytes`."""
        return shared_bytes(product, tile, self._precision)

    def _start(self, product: str, tile: Tile, grid: tuple[int, ...], *arguments: Any) -> None:
        shared = self.shared_bytes(product, tile)
        kernel = f"{product}_{tile[0]}x{tile[1]}"
        self._launch("dense.cu", kernel, grid, BLOCK, *arguments, shared_bytes=shared, precision=self._precision)

    def _library(self, micro_batch: int, num_inputs: int, num_outputs: int) -> Blas | None:
        return self._blas if micro_batch * num_inputs * num_outputs >= BLAS_FROM else None

    def _check_product(self, x: Array, weight: Array, micro_batch: int) -> tuple[int, int, int]:
        (num_rows, num_inputs), num_outputs = x.shape, weight.shape[1]
        assert num_rows > 0, "no rows"
        assert micro_batch > 0, f"a micro-batch of {micro_batch} rows"
        self._check(x, (num_rows, num_inputs), self._value)
        self._check(weight, (num_inputs, num_outputs), self._value)
        return num_rows, num_inputs, num_outputs

    def _check(self, array: Array, shape: tuple[int, ...], dtype: Any) -> None:
        assert array.shape == shape, f"shape {array.shape}, wanted {shape}"
        assert array.dtype == dtype, f"dtype {array.dtype}, wanted {dtype}"
        assert array.flags.c_contiguous, "not contiguous"
        assert array.ndim == 1 or address(array) % 16 == 0, "not at a multiple of 16 bytes"

    def _check_windows(self, array: Array, shape: tuple[int, ...]) -> None:
        assert array.shape == shape, f"shape {array.shape}, wanted {shape}"
        assert array.dtype == np.float32, f"dtype {array.dtype}, wanted float32"
        assert array[0].flags.c_contiguous, "rows that are not contiguous"
        assert array.strides[0] % 4 == 0, "rows at a distance that is no whole number of elements"
