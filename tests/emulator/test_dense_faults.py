"""Faults planted in the text of the dense kernels: each must make a check of `test_dense.py` fail."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from ddpgd.kernels.cuda import sources
from emulator import fake_cupy
from emulator.dense_cases import Case, StrayWriteError, compile_ahead, data, device, errors, run, sliced_sum
from emulator.launcher import KernelError

joined = sources.joined


class Fault(NamedTuple):
    """A planted fault: the text, its replacement, the cases that try it, and the order in which threads run."""

    name: str
    old: str
    new: str
    side: int = 16
    precision: str = "float32"
    order: str = "forward"


Plant = Callable[[SimpleNamespace, Fault], None]
ROW_BOUND = "if (first_row + row >= num_rows) return;\n        const size_t begin"
FAULTS = (
    Fault("no barrier before a stage is read", "synchronize_group<Tile::GROUP>();", "", 64),
    Fault("no barrier of a warp before a stage is read", "synchronize_group<Tile::GROUP>();", "", 16),
    Fault(
        "no barrier before slices meet", "__syncthreads();\n#pragma unroll", "#pragma unroll", 16, "float32", "reverse"
    ),
    Fault(
        "no barrier when slices have met",
        "    __syncthreads();\n    for (int i = number; i < SIZE",
        "    for (int i = number; i < SIZE",
    ),
    Fault("a copy not waited for", "wait_for_pieces<Tile::STAGES - 2>", "wait_for_pieces<Tile::STAGES - 1>", 64),
    Fault("copies that overtake", "copy_next(free_stage);", "copy_next(stage);", 16),
    Fault(
        "a piece too many in a line",
        "share.place < num_terms : share.num_across > 0",
        "share.place <= num_terms : share.num_across >= 0",
    ),
    Fault("a line of pieces too many", "line < num_lines", "line <= num_lines"),
    Fault("a piece at another's place", "thread % LINE_PIECES * SIZE", "thread % LINE_PIECES", 64),
    Fault(
        "lines of pieces not where they are",
        "from + static_cast<size_t>(line)",
        "from + static_cast<size_t>(i)",
        128,
    ),
    Fault("pieces larger than rows allow", "row_bytes % 16 == 0", "row_bytes % 8 == 0", 32),
    Fault("pieces of 16 bits larger than rows allow", "row_bytes % 8 == 0", "row_bytes % 4 == 0", 16, "float16"),
    Fault("half of a piece", "copy_piece<BYTES>(to", "copy_piece<4>(to", 64),
    Fault("a row written behind the last", ROW_BOUND, "const size_t begin", 64),
    Fault(
        "a column written behind the last",
        "+ begin, first_column + column, num_outputs",
        "+ begin, first_column + column, num_outputs + 1",
        16,
    ),
    Fault("the last micro-batch as long as others", "min(micro_batch, num_rows - first_sample)", "micro_batch"),
    Fault(
        "a row missing in sums of columns",
        "for (int i = 0; i < walk.count(); ++i)",
        "for (int i = 1; i < walk.count(); ++i)",
    ),
    Fault("sums of columns by no block", "tile_row == 0, epilogue", "tile_row == 99, epilogue"),
    Fault("a slice lost", "for (int slice = 0; slice < num_slices", "for (int slice = 1; slice < num_slices"),
    Fault("+0 beside the slices", "NO_SLICES = -0.0f", "NO_SLICES = 0.0f"),
    Fault("slices in another order", "sum += slices[slice * SIZE", "sum += slices[(num_slices - 1 - slice) * SIZE"),
    Fault(
        "products rounded on their own",
        "fmaf(a[k][i / NUM_COLUMNS], b[k][i % NUM_COLUMNS], sums[i])",
        "a[k][i / NUM_COLUMNS] * b[k][i % NUM_COLUMNS] + sums[i]",
    ),
    Fault("sums carried into the next slice", "multiplier.sums[i] = 0.0f;\n            }", "}", 64),
    Fault("no slope", "slope(to_float(outputs.at[j]), activation)", "1.0f"),
    Fault("terms of a fragment exchanged", "lane / 4 * 2, lane % 4)", "lane / 4 * 2, lane % 4 ^ 1)", 16, "tf32"),
    Fault("matrices turned wrongly", "load_matrices<!ALONG>", "load_matrices<ALONG>", 64, "float16"),
    Fault("matrices exchanged", "8 * (LEFT ? register_is_odd :", "8 * (!LEFT ? register_is_odd :", 64, "bfloat16"),
    Fault("the same half of the terms twice", "HALF * (LEFT ?", "0 * (LEFT ?", 32, "tf32"),
    Fault("sums put in the wrong line", "INTERLEAVED ? 2 * n", "!INTERLEAVED ? 2 * n", 32, "bfloat16"),
    Fault("sums put in the wrong line in tf32", "INTERLEAVED ? 2 * n", "!INTERLEAVED ? 2 * n", 64, "tf32"),
    Fault("fragments after the first left out", "count <= (MOST - 1)", "count <= MOST", 64, "float16"),
)
# Rows of 4, 16 and 8 bytes in float32, of 2, 16 and 4 in 16 bits.
CASES = (Case(70, 33, 133, 37, "tanh"), Case(70, 33, 64, 72, "relu"), Case(64, 32, 46, 10, "relu"))


def holds(modules: SimpleNamespace, fault: Fault) -> bool:
    dense = modules.cuda_dense.Dense(modules.cuda_launch.Launcher(fault.precision), fault.precision)
    for case in CASES:
        given = data(case, fault.precision)
        if fault.precision == "float32" and case.micro_batch % 4 == 0:  # else zeros that are added make it +0
            given.x[:, 0], given.dout[:, 0] = 1e-30, -1e-30  # whose products add up to -0
        try:
            got = run(modules.cupy, dense, case, given)
        except (KernelError, StrayWriteError):
            return False
        if max(errors(case, fault.precision, given, got).values()) >= 1:
            return False
        if fault.precision == "float32":
            rows = slice(0, case.micro_batch)
            if got.dweight[0].tobytes() != sliced_sum(given.x[rows].T, given.dout[rows]).tobytes():
                return False
    return True


def only(text: str, side: int) -> str:
    """The kernels of one tile alone, which compile sooner."""
    return re.sub(rf"^KERNELS\((?!{side}, {side},).*\n", "", text, flags=re.MULTILINE)


def faulty(file: str, fault: Fault) -> str:
    text = joined(file)
    assert fault.old in text, f"{fault.old!r} is not in {file}"
    return only(text.replace(fault.old, fault.new), fault.side)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    compile_ahead((faulty("dense.cu", fault), fault.precision) for fault in FAULTS)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    def change(modules: SimpleNamespace, fault: Fault) -> None:
        monkeypatch.setattr(sources, "joined", lambda file: faulty(file, fault))
        monkeypatch.setattr(modules.cuda_dense, "pick_tile", lambda *_: (fault.side, fault.side))

    return change


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_planted_fault_is_found(fault: Fault, plant: Plant) -> None:
    with device() as modules:
        fake_cupy.fake_device.settings.order = fault.order
        plant(modules, fault)
        assert not holds(modules, fault)


@pytest.mark.parametrize("order", ["forward", "reverse", "random:3"])
@pytest.mark.parametrize(("side", "precision"), sorted({(fault.side, fault.precision) for fault in FAULTS}))
def test_no_fault_is_found_where_none_is_planted(side: int, precision: str, order: str, plant: Plant) -> None:
    with device() as modules:
        fake_cupy.fake_device.settings.order = order
        fault = Fault("none", "__syncthreads();", "__syncthreads();", side, precision)
        plant(modules, fault)
        assert holds(modules, fault)


def test_the_path_below_sm_80_gives_the_same_results(plant: Plant) -> None:
    with device() as modules:
        fault = Fault("copies at once", "LEAST_ASYNC = 4", "LEAST_ASYNC = 32")
        plant(modules, fault)
        assert holds(modules, fault)
