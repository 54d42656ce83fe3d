"""Faults planted in the persistent kernel are found by other bits than those of CUDA graphs."""

import functools
import math
from typing import Any

import pytest

from . import fake_cupy
from .persistent_runs import TURNS, Left, left
from .planting import Device, Fault, agree, order_that_shows

PLANTED: dict[str, Any] = {"num_steps": 3, "global_batch": 32, "micro_batch": 16, "hidden": (64,)}
BLOCKS = {
    "gather_forward": 16,
    "head_cross_entropy": 2,
    "params_of_layers": 112,
    "tree_sum": 7,
    "decide_and_momentum": 6,
}
"""Thread blocks of each phase."""


@functools.cache
def right() -> Left:
    with fake_cupy.install():
        return left("graph", **PLANTED)


def compare(_: Device) -> None:
    agree(left("persistent", **PLANTED)[:2], right()[:2])


WAIT = "    P::play(words);\n    grid_barrier(barrier);\n"
NO_WAIT = Fault(
    "no barrier of the grid after a phase",
    compare,
    WAIT,
    WAIT.replace("grid", 'if (words[2] != atol(getenv("AFTER"))) grid'),
)
FAULTS = (
    Fault("no barrier between places", compare, "            __syncthreads();  // the next", "            // the next"),
    Fault("no barrier before the program is read", compare, "program[i];\n    __syncthreads();\n", "program[i];\n"),
    Fault("a place that is left out", compare, "at < number; at += gridDim.x", "at < number - 1; at += gridDim.x"),
    Fault("a place in x taken for one in y", compare, "{at % num_x, at / num_x % num_y,", "{at / num_y, at % num_y,"),
    Fault("one step too many", compare, "step < num_steps; ++step", "step < num_steps + 1; ++step"),
    Fault("words of the phase before", compare, "return words + P::NUM_WORDS", "return words + P::NUM_WORDS - 1"),
    Fault(
        "each thread block one part of the norm",
        compare,
        "partials[part] = own;",
        "partials[part] = own;\n        break;",
    ),
)


@pytest.fixture(autouse=True)
def many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the few multiprocessors here, each plays more than its share of thread blocks."""
    with fake_cupy.install():
        monkeypatch.setattr(TURNS, math.inf)


@pytest.mark.parametrize("phase", BLOCKS)
def test_a_missing_barrier_of_the_grid_is_found(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right()
    monkeypatch.setenv("AFTER", str(BLOCKS[phase]))
    assert order_that_shows(NO_WAIT, monkeypatch), "in no order"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    right()
    assert order_that_shows(fault, monkeypatch), "in no order"
