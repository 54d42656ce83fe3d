"""The JSON records of this folder: scaling-model.json holds a `Found`, published-cases.json a list of `Published`."""

from typing import Any, NotRequired, TypedDict

from benchmarks.lib.results import Spread
from ddpgd.scaling.records import Facts


class Fit(TypedDict):
    """The fit of `ddpgd plan --measure` over a link for a network."""

    over: str
    network: str
    num_params: int
    costs: dict[str, Any]
    codings: dict[str, list[float]]
    link: dict[str, float]


class Case(TypedDict):
    """A step that is predicted and measured; `predicted_s` holds the parts of a `Prediction`."""

    link: str
    network: str
    wire: str
    accumulate: int
    predicted_s: dict[str, float]
    step_s: Spread


class Found(Facts):
    """Everything that was measured."""

    fits: list[Fit]
    cases: list[Case]
    repetitions: int


class Published(TypedDict):
    """A scaling efficiency that others have published, and what they say of its conditions."""

    source: str
    address: str
    framework: str
    network: str
    parameters: int
    batch_per_gpu: int
    single_gpu_samples_per_s: float
    gpu: str
    gpus_per_node: int
    ranks: int
    link: str
    link_words: str
    overlap: bool
    efficiency: float
    doubt: str
    predicted: NotRequired[float]
