"""The JSON records of a scaling measurement: results.json holds a `Found`."""

from typing import Any, TypedDict


class Facts(TypedDict):
    """The conditions of a measurement; `load_before` is the load of the machine when it began."""

    command: str
    commit: str
    time: str
    hardware: str
    num_cores: int
    system: str
    load_before: float
    blas: str
    versions: dict[str, str | None]
    environment: dict[str, str]


class Rates(TypedDict):
    """The second half of a run's steps: samples a second, seconds and bytes a step, shares of a step by part."""

    samples_per_s: float
    step_s: float
    shares: dict[str, float]
    wire_bytes: float
    num_nodes: int


class Throughput(Rates):
    """A measured run of a case; `other_load` counts the cores that other programs used meanwhile."""

    case: str
    steps: int
    repetition: int
    wall_s: float
    other_load: float


class TimeToTarget(TypedDict):
    """A run until a test accuracy; `train_s` is None where it was not reached."""

    case: str
    seed: int
    train_s: float | None
    epochs: float
    test_accuracy: float


class Found(TypedDict):
    """All that was asked and measured so far."""

    settings: dict[str, Any]
    place: str
    num_slots: int
    facts: Facts
    steps: dict[str, int]
    runs: list[Throughput]
    targets: list[TimeToTarget]
    finished: bool
