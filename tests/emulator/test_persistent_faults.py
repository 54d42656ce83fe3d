"""Faults planted in the persistent kernel are found by other bits than those of CUDA graphs."""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from . import fake_cupy
from .persistent_runs import TURNS, Left, left
from .planting import Device, Fault, agree, order_that_shows

if TYPE_CHECKING:
    from ddpgd.kernels.cuda.launcher import Launch

PLANTED: dict[str, Any] = {"num_steps": 3, "global_batch": 32, "micro_batch": 16, "hidden": (64,)}
PHASES = "gather_forward_16x8", "head_cross_entropy", "params_of_layers_16x8", "tree_sum", "decide_and_momentum"


@functools.cache
def right() -> Left:
    with fake_cupy.install():
        return left("graph", **PLANTED)


def compare(_: Device) -> None:
    agree(left("persistent", **PLANTED)[:2], right()[:2])


@functools.cache
def num_blocks() -> dict[str, int]:
    """The thread blocks of each phase, by which one is told from the others."""
    found: dict[str, int] = {}

    def noted(launches: Sequence["Launch"]) -> NDArray[np.int64]:
        found.update({launch.kernel: launch.num_blocks for launch in launches})
        return words_of(launches)

    with fake_cupy.install(), pytest.MonkeyPatch.context() as patched:
        from ddpgd.kernels.cuda import persistent

        words_of = persistent.words_of
        patched.setattr(persistent, "words_of", noted)
        patched.setattr(TURNS, math.inf)
        left("persistent", **PLANTED)
    assert found.keys() == set(PHASES)
    assert len(set(found.values())) == len(PHASES)
    return found


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


@pytest.mark.parametrize("phase", PHASES)
def test_a_missing_barrier_of_the_grid_is_found(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right()
    monkeypatch.setenv("AFTER", str(num_blocks()[phase]))
    assert order_that_shows(NO_WAIT, monkeypatch), "in no order"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    right()
    assert order_that_shows(fault, monkeypatch), "in no order"
