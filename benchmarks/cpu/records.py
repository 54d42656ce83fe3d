"""The JSON records of `benchmarks.cpu.run`: cpu.json holds a `Found`."""

from typing import Any, TypedDict

from benchmarks.lib.results import Spread
from ddpgd.scaling.records import Facts


class Measured(TypedDict):
    """A run under the outer clock; `figures` is what the program says of itself."""

    competitor: str
    epochs: int
    wall_s: float
    figures: dict[str, Any]


class Limit(TypedDict):
    """The matrix products of a pass over `rows` samples alone, on the slower rank."""

    library: str
    rows: int
    seconds: float
    flop: int


class Repetition(TypedDict):
    """Every competitor once, at both lengths, and the limits."""

    runs: list[Measured]
    limits: list[Limit]


class Competitor(TypedDict):
    """The figures of a competitor; `ratios` of its throughput over others', within repetitions."""

    samples_per_s: Spread
    ratios: dict[str, Spread]
    difference_s: Spread
    limit_samples_per_s: Spread
    limit_gflop_per_s: Spread
    flop_per_step: int
    sent_bytes_per_step: float
    figures: dict[str, Any]


class WorkloadFound(TypedDict):
    """A workload and all its competitors."""

    name: str
    sizes: list[int]
    global_batch: int
    micro_batch: int
    commands: dict[str, str]
    summary: dict[str, Competitor]


class Conditions(Facts):
    """The conditions of `benchmarks.cpu.run`."""

    cores_of_ranks: list[str]
    mpirun: str
    competitors: list[str]
    num_repetitions: int
    num_ranks: int


class Found(Conditions):
    """Everything that was measured."""

    workloads: list[WorkloadFound]
