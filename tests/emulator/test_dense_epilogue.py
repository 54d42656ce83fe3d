"""Kernels that finish a library's product: equal to NumPy, and faults planted in them are found."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from .planting import ORDERS, Compare, Device, Fault, order_that_shows, run

Array = NDArray[Any]

FILE = "dense_epilogue.cu"
RELU = np.int32(0)
# Rows and columns: less than four columns, thread blocks that begin within a row, whole fours.
SHAPES = ((700, 3), (70, 37), (33, 64))


def whole_numbers(shape: tuple[int, ...], seed: int) -> Array:
    """Values whose sums are exact in any order."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


def guarded(device: Device, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Returns an array of that shape, and words behind it that no kernel may write."""
    size = int(np.prod(shape))
    whole = device.put(np.full(size + 8, 7.5, np.float32))
    return whole[:size].reshape(shape), whole[size:]


def activates(device: Device) -> None:
    for shape in SHAPES:
        sums, bias = whole_numbers(shape, 1), whole_numbers(shape[1:], 2)
        out, behind = guarded(device, shape)
        grid = (-(-sums.size // 1024),)
        sizes = np.int64(sums.size), np.int32(shape[1])
        device.launch(FILE, "activate_sums", grid, (256,), device.put(sums), device.put(bias), out, *sizes, RELU)
        np.testing.assert_array_equal(out.get(), np.maximum(sums + bias, 0))
        assert (behind.get() == 7.5).all()


def multiplies_slopes(device: Device) -> None:
    for shape in SHAPES:
        sums, x = whole_numbers(shape, 3), np.maximum(whole_numbers(shape, 4), 0)
        dx, behind = guarded(device, shape)
        grid = (-(-sums.size // 1024),)
        device.launch(
            FILE, "multiply_slope", grid, (256,), device.put(sums), device.put(x), dx, np.int64(sums.size), RELU
        )
        np.testing.assert_array_equal(dx.get(), sums * (x > 0))
        assert (behind.get() == 7.5).all()


def sums_columns(device: Device) -> None:
    """Micro-batches shorter than a batch of rows, of several batches, and the last one shorter."""
    for num_rows, micro_batch, num_outputs in ((40, 20, 37), (1100, 700, 33), (300, 300, 5)):
        dout = whole_numbers((num_rows, num_outputs), 5)
        count = -(-num_rows // micro_batch)
        dbias = device.put(np.full((count, num_outputs + 3), 7.5, np.float32))
        sizes = np.int32(num_rows), np.int32(micro_batch), np.int32(num_outputs), np.int64(num_outputs + 3)
        grid = (-(-num_outputs // 32), count)
        device.launch(FILE, "sum_columns", grid, (256,), device.put(dout), dbias, *sizes)
        wanted = [dout[first : first + micro_batch].sum(axis=0) for first in range(0, num_rows, micro_batch)]
        np.testing.assert_array_equal(dbias.get()[:, :num_outputs], wanted)
        assert (dbias.get()[:, num_outputs:] == 7.5).all()


FAULTS = (
    Fault("a column too many", activates, "column + 1 == width", "column == width"),
    Fault("threads one column apart", activates, "+ 4 * threadIdx.x) % width", "+ threadIdx.x) % width"),
    Fault("blocks that begin with a row", activates, "blockIdx.x % width * (4 * NUM_THREADS)", "0"),
    Fault(
        "elements behind the last",
        activates,
        "(rounded, static_cast<Value*>(out), first, size)",
        "(rounded, static_cast<Value*>(out), first, size + 1)",
    ),
    Fault("slopes of the wrong elements", multiplies_slopes, "load<4>(x, first, size)", "load<4>(x, 0, size)"),
    Fault(
        "an element left out",
        multiplies_slopes,
        "store<4>(values, dx, first, size)",
        "store<4>(values, dx, first, size - 1)",
    ),
    Fault("rows of the next slice", sums_columns, "row + BATCH <= end", "row < end"),
    Fault("rows left out between batches", sums_columns, "row += BATCH)", "row += BATCH + 1)"),
    Fault("rows after the batches left out", sums_columns, "for (; row < end; ++row)", "for (; row + 1 < end; ++row)"),
    Fault("the last slices left out", sums_columns, "i * slice < num_samples", "(i + 1) * slice < num_samples"),
)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("compare", [activates, multiplies_slopes, sums_columns])
def test_equals_numpy(compare: Compare, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(compare, order, monkeypatch)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_that_shows(fault, monkeypatch) is not None
