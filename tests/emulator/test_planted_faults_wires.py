"""Faults planted in the text of the sparse and low-rank kernels are found."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.kernels.reference import low_rank, sparse
from oracles import bits, uneven

from .planting import BARRIER, ORDERS, Compare, Device, Fault, order_that_shows, run

Array = NDArray[Any]


def wire_of(device: Device) -> Any:
    # Binds what `import cupy` finds, so only now.
    from ddpgd.kernels.cuda.compress import CudaWire

    return CudaWire(device.launch)


def selects(device: Device) -> None:
    """Distinct magnitudes; few that are often equal or 0; and near ones, of which a thread's digits hold just those wanted.

    Several searches, one after the other.
    """
    wire, ties = wire_of(device), np.random.default_rng(1).integers(-2, 3, 3001).astype(np.float32)
    near = (1 + np.random.default_rng(7).permutation(3001) / 2**15).astype(np.float32)
    for kept, count in (
        (near, 25),
        (uneven(1, 3001), 700),
        (ties.copy(), 1501),
        (ties.copy(), 2900),
        (uneven(2, 3001), 1),
    ):
        velocity = uneven(3, 3001)
        there = device.put(kept), device.put(velocity)
        found = device.put(np.zeros(count, np.uint32)), device.put(np.zeros(count, np.float32))
        wire.select(*there, *found)
        indices, values = np.zeros(count, np.uint32), np.zeros(count, np.float32)
        sparse.select(kept, velocity, indices, values)
        for held, wanted in zip((*there, *found), (kept, velocity, indices, values), strict=True):
            np.testing.assert_array_equal(bits(held.get()), bits(wanted))


def scans(device: Device) -> None:
    """More blocks than one turn of the loop takes."""
    marks = np.random.default_rng(2).integers(0, 2**40, 2500).astype(np.uint64)
    there = device.put(marks)
    device.launch("sparse.cu", "scan_marks", (1,), (1024,), there, np.int64(2500))
    np.testing.assert_array_equal(there.get(), np.concatenate([[0], np.cumsum(marks)[:-1]]))


def accumulates(device: Device) -> None:
    """And adds a list; of ragged lengths."""
    wire = wire_of(device)
    values, velocity, kept = (uneven(seed, 1023) for seed in (4, 5, 6))
    there = [device.put(vector) for vector in (values, velocity, kept)]
    wire.accumulate(there[0], 0.3, there[1], 0.7, there[2])
    sparse.accumulate(values, 0.3, velocity, 0.7, kept)
    np.testing.assert_array_equal(bits(there[1].get()), bits(velocity))
    np.testing.assert_array_equal(bits(there[2].get()), bits(kept))
    places = np.random.default_rng(3).permutation(1023)[:300].astype(np.uint32)
    wire.scatter_add(device.put(places), there[0][:300], 0.3, there[2])
    sparse.scatter_add(places, values[:300], 0.3, kept)
    np.testing.assert_array_equal(bits(there[2].get()), bits(kept))


def multiplies(device: Device) -> None:
    """Whole numbers, whose sums are exact in any order."""
    wire, rng = wire_of(device), np.random.default_rng(4)
    matrix, left, right = (rng.integers(-9, 10, shape).astype(np.float32) for shape in ((37, 45), (37, 5), (45, 5)))
    there = device.put(matrix)
    narrow = device.put(np.zeros((37, 5), np.float32)), device.put(np.zeros((45, 5), np.float32))
    wire.project(there, device.put(right), narrow[0])
    np.testing.assert_array_equal(narrow[0].get(), matrix @ right)
    wire.project_back(there, device.put(left), narrow[1])
    np.testing.assert_array_equal(narrow[1].get(), matrix.T @ left)
    wire.add_product(device.put(left), device.put(right), -0.5, there)
    np.testing.assert_array_equal(there.get(), matrix - 0.5 * left @ right.T)


def orthonormalises(device: Device) -> None:
    """Columns that are nearly the same one, and two of zeros."""
    wire, rng = wire_of(device), np.random.default_rng(5)
    matrix = (rng.standard_normal((1100, 5)) + 300 * rng.standard_normal((1100, 1))).astype(np.float32)
    matrix[:, 3:] = 0
    spare = np.zeros((1100, 5), np.float32)
    spare[3, 3] = spare[4, 4] = 1
    there = device.put(matrix)
    wire.orthonormalise(there, device.put(spare))
    columns = there.get().astype(np.float64)
    assert np.abs(columns[:, :3].T @ columns[:, :3] - np.eye(3)).max() < 1e-6
    np.testing.assert_array_equal(columns[:, 3:], spare[:, 3:])
    low_rank.orthonormalise(matrix, spare)
    np.testing.assert_allclose(columns, matrix, atol=1e-3)


COMPARISONS = (selects, scans, accumulates, multiplies, orthonormalises)
FAULTS = (
    Fault("block_scan: read before written", selects, f"= sum;\n{BARRIER}    sum -=", "= sum;\n    sum -="),
    Fault(
        "block_scan: written before read",
        scans,
        "    __syncthreads();  // a scan before this one may still be read\n",
        "",
    ),
    Fault("block_scan: with the thread itself", selects, "    sum -= own;\n", ""),
    Fault("block_scan: without the last warp", scans, "other < num_warps", "other < num_warps - 1"),
    Fault("count_digits: counted before cleared", selects, f"counts[digit] = 0;\n{BARRIER}", "counts[digit] = 0;\n"),
    Fault(
        "count_digits: told before counted",
        selects,
        f"    }}\n{BARRIER}    for (int digit",
        "    }\n    for (int digit",
    ),
    Fault("count_digits: one bit fewer", selects, "? 11 : 10", "? 10 : 10"),
    Fault("count_digits: all, whatever is found", selects, ">> (shift + width) == 0", ">> (shift + width) != ~0u"),
    Fault("find_digit: never cleared", selects, "search->counts[highest - j] = 0;", ""),
    Fault("find_digit: the next one down", selects, "if (above >= wanted) return;", "if (above > wanted) return;"),
    Fault("find_digit: not the last of a digit", selects, "wanted - above <= own[j]", "wanted - above < own[j]"),
    Fault("find_digit: of the search before", selects, "? 0 : search->least", "? search->least : search->least"),
    Fault("mark_of: equals count as over", selects, "magnitude > least ?", "magnitude >= least ?"),
    Fault("take_marked: an equal too many", selects, "equal >= wanted)", "equal > wanted)"),
    Fault("take_marked: room for all equals", selects, "over + min(equal, wanted)", "over + equal"),
    Fault("take_marked: not counted on", selects, "        before += mark;\n", ""),
    Fault("take_marked: the velocity stays", selects, "if (velocities != nullptr) velocities[first + j] = 0.0f;", ""),
    Fault("scan_marks: each turn from 0", scans, "before + within", "within"),
    Fault("scan_marks: the last turn alone", scans, "before += total", "before = total"),
    Fault("accumulate: without momentum", accumulates, "__fmul_rn(momentum, velocity.at[j])", "velocity.at[j]"),
    Fault("scatter_add: past the end", accumulates, "if (i >= k) return;", ""),
    Fault("project: a lane fewer", multiplies, "j += 32", "j += 31"),
    Fault("project: columns beyond", multiplies, "if (lane == 0 && first + c < width)", "if (lane == 0)"),
    Fault("project_back: read before written", multiplies, f"= sum[c];\n{BARRIER}", "= sum[c];\n"),
    Fault("project_back: columns beyond", multiplies, "first + warp >= width || ", ""),
    Fault("project_back: without the first warp's", multiplies, "total = of_warps[0]", "total = of_warps[1]"),
    Fault("add_product: rows beyond", multiplies, "if (first + i >= num_rows) return;", ""),
    Fault("orthonormalise: once", orthonormalises, "step < 2 * c", "step < c"),
    Fault("orthonormalise: zeros over zeros", orthonormalises, "after > LEAST_LEFT", "after >= LEAST_LEFT"),
    Fault(
        "dot: one row a thread",
        orthonormalises,
        "sum = __fmaf_rn(left[i * width]",
        "if (i < 1024) sum = __fmaf_rn(left[i * width]",
    ),
)


@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda compare: compare.__name__)
@pytest.mark.parametrize("order", ORDERS)
def test_the_text_as_it_is_passes(compare: Compare, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(compare, order, monkeypatch)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_that_shows(fault, monkeypatch)
