"""Windows of columns on the device: copies of them, dropout, and contiguous stand-ins for kernels that take no others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ddpgd.kernels.cuda.dense import ACTIVATIONS
from ddpgd.kernels.cuda.launcher import THREADS, Launcher, count_of
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Dropout, Rows
from ddpgd.kernels.philox import Purpose

DRAWS_PER_THREAD = 16
"""Units whose draws a thread makes; `dropout.cu` says the same."""


class Columns:
    """The ops on windows of one device. `empty`: makes an array there."""

    def __init__(self, launch: Launcher, empty: Callable[[tuple[int, ...], np.dtype[np.generic]], Array]) -> None:
        self._launch = launch
        self._empty = empty
        self._stand_ins: dict[tuple[str, tuple[int, ...], np.dtype[np.generic]], Array] = {}

    def copy(self, values: Array, out: Array) -> None:
        """Does what `Ops.copy` says."""
        assert values.shape == out.shape, f"shape {values.shape}, wanted {out.shape}"
        assert values.dtype == out.dtype, f"dtype {values.dtype}, wanted {out.dtype}"
        arguments = values, _stride(values), out, _stride(out)
        self._start(f"copy_{out.itemsize}", out, *arguments)

    def activation_backward(self, dout: Array, x: Array, activation: str, dx: Array) -> None:
        """Does what `Ops.activation_backward` says."""
        assert dout.dtype == np.float32, f"dtype {dout.dtype}, wanted float32"
        arguments = dout, _stride(dout), x, _stride(x), dx, _stride(dx)
        self._start("activation_backward", dx, *arguments, last=(np.int32(ACTIVATIONS[activation]),))

    def dropout(self, x: Array, rows: Rows, dropout: Dropout, first: int, out: Array) -> None:
        """Does what `Ops.dropout` says."""
        assert x.dtype == out.dtype, f"dtype {x.dtype}, wanted {out.dtype}"
        (num_rows, width), end = x.shape, first + x.shape[1]
        grid = (count_of(num_rows * (count_of(end, DRAWS_PER_THREAD) - first // DRAWS_PER_THREAD), THREADS),)
        samples = rows.order, rows.cursor, np.int64(rows.offset)
        key = np.uint64(dropout.seed), np.uint64(Purpose.DROPOUT), np.int32(dropout.layer)
        factors = np.int32(dropout.threshold), np.float32(dropout.scale)
        sizes = map(np.int32, (num_rows, first, width))
        where = "dropout.cu", "dropout", grid, (THREADS,)
        self._launch(*where, x, _stride(x), *samples, *key, *factors, out, _stride(out), *sizes)

    def packed(self, purpose: str, window: Array) -> Array:
        """Returns what `stand_in` does, with the values of `window`."""
        stand_in = self.stand_in(purpose, window)
        if stand_in is not window:
            self.copy(window, stand_in)
        return stand_in

    @contextmanager
    def filling(self, purpose: str, window: Array) -> Iterator[Array]:
        """Lends an array that is contiguous, whose values `window` has afterwards."""
        stand_in = self.stand_in(purpose, window)
        yield stand_in
        if stand_in is not window:
            self.copy(stand_in, window)

    def stand_in(self, purpose: str, window: Array) -> Array:
        """Returns an array like `window` that is contiguous: itself, or always the same one of a purpose."""
        if window.flags.c_contiguous:
            return window
        key = purpose, window.shape, window.dtype
        if key not in self._stand_ins:
            self._stand_ins[key] = self._empty(window.shape, window.dtype)
        return self._stand_ins[key]

    def _start(self, kernel: str, out: Array, *arguments: object, last: tuple[object, ...] = ()) -> None:
        if out.size:
            grid = (count_of(out.size, THREADS),)
            sizes = np.int64(out.size), np.int32(out.shape[-1])
            self._launch("columns.cu", kernel, grid, (THREADS,), *arguments, *sizes, *last)


def _stride(window: Array) -> np.int64:
    """Elements from one row to the next."""
    assert window.strides[-1] == window.itemsize, "rows that are not contiguous"
    return np.int64(window.strides[0] // window.itemsize if window.ndim > 1 else window.size)
