"""The JSON records of `benchmarks.exchange.run`: exchange.json holds a `Found`."""

from typing import TypedDict

from benchmarks.lib.results import Spread
from ddpgd.scaling.records import Facts


class PingPong(TypedDict):
    """A link: latency, and the rate of messages of several lengths; `nominal_bytes_per_s` of a link of the lab."""

    alpha_s: float
    nominal_bytes_per_s: float | None
    bytes_per_s_by_length: dict[str, float]


class Sum(TypedDict):
    """A contestant in a case; `bytes_sent` is None where the library does not tell."""

    time_s: Spread
    bytes_sent: int | None
    num_pieces: int
    one_shot: bool | None
    distance_to_ordered: float


class CaseFound(TypedDict):
    """A case; `one_shot_over_segments` is the median ratio of times within a repetition."""

    size_bytes: int
    num_micro_batches: int
    one_shot_over_segments: float | None
    contestants: dict[str, Sum]


class LeftOut(TypedDict):
    """A case for which there was no time."""

    size_bytes: int
    num_micro_batches: int


class GroupFound(TypedDict):
    """The cases of one link and number of ranks."""

    link: str
    num_ranks: int
    ping_pong: PingPong
    cases: list[CaseFound]
    left_out: list[LeftOut]


class Found(Facts):
    """Everything that was measured."""

    mpirun: str
    one_shot_bytes: int
    seconds: float
    groups: list[GroupFound]
    failed: list[str]
