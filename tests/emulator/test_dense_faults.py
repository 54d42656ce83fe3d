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
        "    __syncthreads();\n    for (int i = threadIdx.x; i < SIZE",
        "    for (int i = threadIdx.x; i < SIZE",
    ),
    Fault("a copy not waited for", "wait_for_pieces<Tile::STAGES - 2>", "wait_for_pieces<Tile::STAGES - 1>", 64),
    Fault("copies that overtake", "copy_next(free_stage);", "copy_next(stage);", 16),
    Fault("a value too many in a line", "y < num_lines && x < num_places", "y < num_lines && x <= num_places"),
    Fault("a line of values too many", "y < num_lines && x < num_places", "y <= num_lines && x < num_places"),
    Fault("a line of pieces too many", "i * LINE_STEP < num_lines", "i * LINE_STEP <= num_lines"),
    Fault("a piece at another's place", "thread % LINE_PIECES * PIECE", "thread % LINE_PIECES", 64),
    Fault(
        "lines of pieces not where they are",
        "at + static_cast<size_t>(i * LINE_STEP)",
        "at + static_cast<size_t>(i)",
        128,
    ),
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
    Fault("a slice lost", "for (int slice = 1; slice < num_slices", "for (int slice = 2; slice < num_slices"),
    Fault("slices in another order", "sum += slices[slice * SIZE", "sum += slices[(num_slices - slice) * SIZE"),
    Fault(
        "products rounded on their own",
        "fmaf(a[k][i / NUM_COLUMNS], b[k][i % NUM_COLUMNS], sums[i])",
        "a[k][i / NUM_COLUMNS] * b[k][i % NUM_COLUMNS] + sums[i]",
    ),
    Fault("sums carried into the next slice", "multiplier.sums[i] = 0.0f;\n            }", "}", 64),
    Fault("no slope", "slope(to_float(values.at[j]), activation)", "1.0f"),
    Fault(
        "terms of a fragment exchanged", "pair[0] = to_tf32(line[t]);", "pair[0] = to_tf32(line[t + 1]);", 16, "tf32"
    ),
    Fault("words taken apart wrongly", "(first & 0xffffu) | (second", "(second & 0xffffu) | (first", 64, "float16"),
    Fault("sums put in the wrong column", "4 * t + 2 * odd + second", "8 * second + 2 * t + odd", 32, "bfloat16"),
    Fault(
        "a row of fragments mistaken", "g + 8 * lower : 2 * g + lower", "2 * g + lower : g + 8 * lower", 16, "float16"
    ),
)
CASES = (Case(70, 33, 133, 37, "tanh"), Case(70, 33, 64, 72, "relu"))


def holds(modules: SimpleNamespace, fault: Fault) -> bool:
    dense = modules.cuda_dense.Dense(modules.cuda_launch.Launcher(fault.precision), fault.precision)
    for case in CASES:
        given = data(case, fault.precision)
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
        fault = Fault("copies at once", "__CUDA_ARCH__ < 800", "__CUDA_ARCH__ < 2000")
        plant(modules, fault)
        assert holds(modules, fault)
