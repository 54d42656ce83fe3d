"""The files of the flight recorder: RUN/record, one of each rank and start, of a header and rows of the same length."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.agreement import on_root
from ddpgd.comm.grid import Shape
from ddpgd.comm.transport import Transport
from ddpgd.errors import InputError
from ddpgd.kernels.ops import Ops
from ddpgd.run import strict_json
from ddpgd.training.flight_recorder import NUM_WEIGHED, PHASES, FlightRecorder
from ddpgd.training.protocols import Sync
from ddpgd.training.step import Step

FOLDER = "record"
_NAME = re.compile(r"from-(\d{1,15})-rank-(\d{1,7})\.words")
_LONGEST_HEADER = 1_000_000
_VECTORS = [phase for phase in PHASES if phase != "input"]


@dataclass(frozen=True)
class Header:
    """The meaning of a rank's words.

    Attributes:
        rank: The rank.
        shape: Ranks along each axis of the grid: data, pipeline, tensor.
        size: Elements of its params.
        unit_starts: First elements of the units of its layout.
        tensors: Name, first element and shape of each tensor.
        gets_whole_sum: False: the sum is recorded in parts, one on each rank.
    """

    rank: int
    shape: list[int]
    size: int
    unit_starts: list[int]
    tensors: list[list[Any]]
    gets_whole_sum: bool

    @property
    def num_words(self) -> int:
        """Words of a row."""
        return 2 + len(_VECTORS) * (len(self.unit_starts) + NUM_WEIGHED)


def _prepare(run: Path, step: int) -> None:
    """Makes the folder for recordings of a start after `step` steps, and removes those of steps that it does once more.

    Raises:
        OSError: It cannot be written.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        name = _NAME.fullmatch(path.name)
        if name and int(name[1]) >= step:
            path.unlink(missing_ok=True)


class RecordingFile:
    """The file of a rank's start, written step by step: what a killed process has written stays."""

    def __init__(self, run: Path, step: int, header: Header) -> None:
        """`step`: steps done. OSError: it cannot be written."""
        folder = run / FOLDER
        folder.mkdir(parents=True, exist_ok=True)  # of a machine that does not share it
        self._path = folder / f"from-{step}-rank-{header.rank}.words"
        self._number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.write(json.dumps(asdict(header)).encode() + b"\n")

    def write(self, words: bytes) -> None:
        """Appends what is one row. OSError, with the file's name: it cannot be written."""
        left = memoryview(words)
        try:
            while left:
                left = left[os.write(self._number, left) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def close(self) -> None:
        os.close(self._number)


@contextmanager
def recorded(run: Path, step: Sync, ops: Ops, transport: Transport, shape: Shape, is_asked: bool) -> Iterator[None]:
    """Records every step of this rank until the block ends, if that is asked for; every rank calls it.

    Args:
        run: The folder of the run, which exists.
        step: Makes the steps.
        ops: Where it computes.
        transport: All ranks.
        shape: Ranks along each axis of the grid.
        is_asked: Whether --record is given.
    """
    if not (is_asked and isinstance(step, Step)):
        yield
        return
    steps_done, layout, own = step.state.counters.step, step.passes.network.layout, step.state.shares.own
    on_root(transport, lambda: _prepare(run, steps_done))
    starts = [unit.start for unit in layout.units]
    tensors = [[tensor.name, tensor.start, list(tensor.shape)] for tensor in layout.tensors]
    header = Header(transport.rank, list(shape), layout.size, starts, tensors, own == slice(0, layout.size))
    with closing(RecordingFile(run, steps_done, header)) as file:
        step.add_tap(FlightRecorder(ops, step.batches, step.exchange.micro_batches, starts, own, file.write))
        yield


@dataclass(frozen=True)
class Recording:
    """The recorded steps of a rank.

    Attributes:
        header: What it means.
        rows: uint64 (steps, words): of steps that follow each other.
    """

    header: Header
    rows: NDArray[np.uint64]

    def phase(self, row: int, phase: str) -> NDArray[np.uint64]:
        """Returns the words of a phase of a row."""
        if phase == "input":
            return self.rows[row, 1:2]
        length = len(self.header.unit_starts) + NUM_WEIGHED
        first = 2 + _VECTORS.index(phase) * length
        return self.rows[row, first : first + length]


def read(run: Path) -> dict[int, list[tuple[Recording, int]]]:
    """Reads a run's recordings: for each step, from 1, the recording of each rank and the row in it, in rank order.

    Where a run was gone on with from an earlier step, the later start counts.

    Raises:
        InputError: There are none, or a file is damaged.
    """
    folder = run / FOLDER
    try:
        found = [(_NAME.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    except OSError as error:
        raise InputError(f"{run}: has no recording ({error.strerror}); train with --record") from None
    starts: dict[int, list[Recording]] = {}
    for name, path in found:
        if name:
            starts.setdefault(int(name[1]), []).append(_read(path))
    steps: dict[int, list[tuple[Recording, int]]] = {}
    for start in sorted(starts):
        ranks = sorted(starts[start], key=lambda one: one.header.rank)
        if not any(len(one.rows) for one in ranks):
            continue  # it ended before its first step
        _check_ranks(folder, start, ranks)
        for step in [step for step in steps if step > start]:
            del steps[step]
        # A step counts where all its ranks have recorded it.
        for row in range(min(len(one.rows) for one in ranks)):
            steps[start + row + 1] = [(one, row) for one in ranks]
    if not steps:
        raise InputError(f"{run}: its recording holds no step; train with --record")
    return steps


def _check_ranks(folder: Path, start: int, ranks: list[Recording]) -> None:
    """InputError: files of ranks are missing, or of other starts."""
    there, wanted = {one.header.rank for one in ranks}, math.prod(ranks[0].header.shape)
    missing = next((rank for rank in range(min(wanted, len(there) + 1)) if rank not in there), None)
    if missing is not None:
        name = f"from-{start}-rank-{missing}.words"
        raise InputError(
            f"{folder / name} is missing: {wanted} ranks have recorded; copy the folders of all machines into one"
        )
    if len(there) > wanted or len({tuple(one.header.shape) for one in ranks}) > 1:
        raise InputError(f"{folder}: holds files of several runs with one start, {start}; record the run again")


def _check_rows(header: Header, rows: NDArray[np.uint64]) -> None:
    """ValueError: sums of units, of rows and of columns do not agree."""
    num_units = len(header.unit_starts)
    vectors = rows[:, 2:].reshape(len(rows), len(_VECTORS), num_units + NUM_WEIGHED)
    total = vectors[:, :, :num_units].sum(axis=2, dtype=np.uint64)
    for upper in (num_units, num_units + 4):
        weighed = (vectors[:, :, upper] << np.uint64(32)) + vectors[:, :, upper + 1]
        if (bad := np.flatnonzero((weighed != total).any(axis=1))).size:
            raise ValueError(f"row {bad[0] + 1} is damaged")


def _read(path: Path) -> Recording:
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_HEADER)
            header = _header(strict_json.parse(first.decode()))
            length = (os.fstat(file.fileno()).st_size - len(first)) // (8 * header.num_words) * header.num_words
            rows = np.fromfile(file, np.uint64, length).reshape(-1, header.num_words)
            _check_rows(header, rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a recording of ddpgd ({error}); record the run again") from None
    return Recording(header, rows)


def _header(table: Any) -> Header:
    """Returns the header in a JSON value. ValueError, TypeError: it is none."""
    header = Header(**table)
    numbers: Iterable[Any] = (header.rank, header.size, *header.shape, *header.unit_starts)
    if not all(type(number) is int and 0 <= number < 2**40 for number in numbers) or len(header.shape) != 3:
        raise ValueError("its numbers are no places")
    if not header.unit_starts or header.unit_starts != sorted({0, *header.unit_starts}):
        raise ValueError("its units do not follow each other")
    for name, start, shape in header.tensors:
        if type(name) is not str or type(start) is not int or not all(type(length) is int for length in shape):
            raise ValueError("its tensors have no names or places")
    return header
