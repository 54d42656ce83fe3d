"""The JSON records of `benchmarks.slow_links.run`: slow-links.json holds a `Found`."""

from typing import TypedDict

from ddpgd.scaling.records import Facts


class Curve(TypedDict):
    """A whole run: steps until each accuracy of TARGETS was first seen (None: never), and the accuracy at its end.

    `start` numbers the start of the program that measured it; `wire_bytes` is None where the program does not count.
    """

    network: str
    setting: str
    seed: int
    start: int
    steps_to: dict[str, int | None]
    accuracy: float
    wire_bytes: float | None


class StepTime(TypedDict):
    """Seconds a step of a setting over a link, by repetition: whole-run times are added up within a repetition."""

    link: str
    network: str
    setting: str
    num_steps: int
    step_s: dict[str, float]


class Found(TypedDict):
    """Everything that was measured, by one or more starts."""

    epochs: int
    starts: list[Facts]
    curves: list[Curve]
    steps: list[StepTime]
    failed: list[str]
