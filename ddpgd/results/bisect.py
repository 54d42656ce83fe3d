"""`ddpgd bisect`: the first step, phase, rank, layer and element at which two runs, or two ranks of one run, differ."""

import math
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.config.parsing import path
from ddpgd.config.units import plural
from ddpgd.errors import InputError
from ddpgd.run import recording
from ddpgd.run.recording import Header, Recording
from ddpgd.training.flight_recorder import NUM_WEIGHED, PHASES, ROW_ELEMENTS, place

WORK_OPTIONS = ()
"""Options of the configuration that are flags of `bisect`."""

Words = NDArray[np.uint64]
_HALF = 2**32
_IN_PARTS = {"params": None, "input": None, "sum": -NUM_WEIGHED // 2}
"""Those of the words of a phase that parts have together: sums of columns mix them."""


class Difference(NamedTuple):
    """The first difference.

    Attributes:
        step: The step, from 1.
        phase: One of PHASES.
        rank: The rank that differs; None: it is of all ranks together.
        place: Layer and element in words; empty: input has none.
    """

    step: int
    phase: str
    rank: int | None
    place: str

    def __str__(self) -> str:
        of = "" if self.rank is None else f" of rank {self.rank}"
        return f"step {self.step}: the {self.phase}{of}{self.place and f', {self.place}'}"


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd bisect`."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        type=path,
        help="folders of two runs with --record, or of one, to compare its ranks",
    )


def lines(parsed: Mapping[str, Any]) -> list[str]:
    """Returns what is found, in a line or two.

    Raises:
        InputError: There are more than two runs, no recordings, or runs that cannot be compared.
    """
    runs = [Path(run) for run in parsed["runs"]]
    if len(runs) > 2:
        raise InputError(f"bisect: {len(runs)} runs; name two, or one whose ranks are compared")
    read = [recording.read(run) for run in runs]
    if len(runs) == 1:
        num_steps, found = len(read[0]), next(_between_ranks(read[0]), None)
        what = f"the ranks of {runs[0]}"
    else:
        common = sorted(read[0].keys() & read[1].keys())
        if not common:
            raise InputError(f"{runs[0]} and {runs[1]} have recorded no step in common; record both from the beginning")
        num_steps, found = len(common), next(_between_runs(read[0], read[1], common), None)
        what = f"{runs[0]} and {runs[1]}"
    if found is None:
        return [f"{what}: equal in all {plural(num_steps, 'step')} that are recorded"]
    return [f"{what} differ first at {found}"]


Steps = dict[int, list[tuple[Recording, int]]]


def _between_ranks(steps: Steps) -> Iterator[Difference]:
    """Finds where ranks that hold the same differ: in the params that a step begins with, and in whole sums."""
    for step, ranks in steps.items():
        for phase in ("params", "sum"):
            firsts: dict[int, Words] = {}
            for one, row in ranks:
                if phase == "sum" and not one.header.gets_whole_sum:
                    continue
                _, pipeline, tensor = one.header.shape
                words = one.phase(row, phase)
                usual = firsts.setdefault(one.header.rank % (pipeline * tensor), words)
                if (usual != words).any():
                    yield Difference(step, phase, one.header.rank, _place(usual, words, one.header))


def _between_runs(left: Steps, right: Steps, steps: list[int]) -> Iterator[Difference]:
    for step in steps:
        ours, theirs = left[step], right[step]
        if ours[0][0].header.tensors != theirs[0][0].header.tensors:
            raise InputError(
                "the runs have other networks, or ranks with other parts of it; record them in the same layout"
            )
        headers = ours[0][0].header, theirs[0][0].header
        is_alike = headers[0].shape == headers[1].shape
        has_same_sums = headers[0].gets_whole_sum == headers[1].gets_whole_sum
        for phase in PHASES:
            if is_alike and (phase != "sum" or has_same_sums):
                for (one, row), (other, other_row) in zip(ours, theirs, strict=True):
                    words, others = one.phase(row, phase), other.phase(other_row, phase)
                    if (words != others).any():
                        yield Difference(step, phase, one.header.rank, _place(words, others, one.header, phase))
            elif is_alike or phase != "gradient":
                words, others = (_whole(ranks, phase)[: _IN_PARTS[phase]] for ranks in (ours, theirs))
                if (words != others).any():
                    yield Difference(step, phase, None, _place(words, others, ours[0][0].header, phase))


def _whole(ranks: list[tuple[Recording, int]], phase: str) -> Words:
    """Returns the words of what ranks have together, in a layout in which each has all params."""
    first, row = ranks[0]
    is_divided = phase == "input" or (phase == "sum" and not first.header.gets_whole_sum)
    if not is_divided:
        return first.phase(row, phase)
    total: Words = np.add.reduce([one.phase(own, phase) for one, own in ranks], axis=0, dtype=np.uint64)
    return total


def _place(words: Words, others: Words, header: Header, phase: str = "") -> str:
    """Returns the layer, and the element where one alone differs, by their checksums."""
    if phase == "input":
        return ""
    change, num_units = others - words, len(header.unit_starts)
    units = np.flatnonzero(change[:num_units])
    spans = [(header.unit_starts[unit], [*header.unit_starts[1:], header.size][unit]) for unit in units]
    if len(units) == 1 and len(words) == num_units + NUM_WEIGHED:
        of_rows, of_columns = (slice(num_units + first, num_units + first + 4) for first in (0, 4))
        row, column = place(words[of_rows], others[of_rows]), place(words[of_columns], others[of_columns])
        if row is not None and column is not None:
            return _element(row * ROW_ELEMENTS + 2 * column, int(change[units[0]]), header)
    names = [name for name, start, _ in header.tensors if any(first <= start < end for first, end in spans)]
    if not names:
        return "elements that add up to the same, or one of the files is damaged"
    return f"elements of {', '.join(names[:4])}{', ...' * (len(names) > 4)}"


def _element(first: int, by: int, header: Header) -> str:
    """Returns the tensor and the index of the element that changed, in a word that begins with element `first`."""
    signed = by - 2**64 if by >= 2**63 else by
    # The first element of a word is its lower half.
    element = first + 1 if by % _HALF == 0 else first
    both = by % _HALF and abs(signed) >= _HALF
    for name, start, shape in header.tensors:
        if start <= element < start + math.prod(shape):
            index = ", ".join(map(str, np.unravel_index(element - start, shape)))
            return f"{name}[{index}]" + " and the next one" * bool(both)
    return "an element between tensors"
