"""Decision and update in one cooperative launch: the bits of the two alone, over rules, lengths and decisions."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.kernels.words import (
    BLOCK,
    CONTROL_WORDS,
    CURSOR_WORDS,
    HISTORY_WORDS,
    TAIL_WORDS,
    Control,
    Cursor,
    Policy,
    Tail,
)
from ddpgd.optim.rules import ELEMENTWISE

from . import fake_cupy
from .planting import Device, Fault, agree, order_that_shows

Array = NDArray[Any]
ORDERS = ("forward", "reverse", "random:3")
DECISIONS: dict[str, dict[str, float]] = {
    "applied": {},
    "clipped": {"clip_norm": 0.01},
    "clipped by value": {"clip_value": 0.01},
    "with momentum": {"momentum": 0.7, "lr_factor": 0.5},
    "idle": {"samples": 0.0},
    "halted": {"halted": 1.0},
    "a loss that is not finite": {"non_finite": 1.0},
    "an overflow": {"infinite": 1.0, "growth_interval": 2},
    "a gradient that is not finite": {"infinite": 1.0},
    "the loss scale grows": {"growth_interval": 1},
}


def decided(rule: str, num_blocks: int, precision: str, fused: bool, **given: float) -> tuple[list[bytes], int]:
    """All vectors and words after two steps, and the launches of the second."""
    from ddpgd.kernels.cuda.backend import Cuda

    ops: Any = Cuda(0, precision)
    rng, size = np.random.default_rng(1), BLOCK * num_blocks
    params, grads, *state = (ops.from_host(rng.standard_normal(size).astype(np.float32)) for _ in range(4))
    state = state[: len(ELEMENTWISE[rule].state)]
    if given.get("infinite"):
        grads[size - 1] = np.inf
    words, tail, cursor = np.zeros(CONTROL_WORDS), np.zeros(TAIL_WORDS, np.float32), np.zeros(CURSOR_WORDS, np.int64)
    words[[Control.LOSS_SCALE, Control.HALTED]] = 8.0, given.get("halted", 0.0)
    words[Control.LR_FACTOR] = given.get("lr_factor", 1.0)
    tail[[Tail.SAMPLES, Tail.NON_FINITE]] = given.get("samples", 32.0), given.get("non_finite", 0.0)
    cursor[Cursor.RECORD] = 6
    control, summed, at = (ops.from_host(array) for array in (words, tail, cursor))
    momentum, history = given.get("momentum", 0.0), ops.zeros((7, HISTORY_WORDS), np.float64)
    rates = ops.from_host(np.array([[0.1, momentum], [0.2, momentum], [0.3, momentum]]))
    clip_norm, clip_value = given.get("clip_norm", 0.0), given.get("clip_value", 0.0)
    policy = Policy(32, clip_norm, int(given.get("growth_interval", 0)), 2.0**15, clip_value)
    weights, hyper = ops.round_weights(params), [0.5 / (number + 1) for number in range(len(ELEMENTWISE[rule].hyper))]

    def work() -> None:
        ops.decide(grads, summed, rates, at, control, history, policy)
        ops.update(rule, params, grads, state, control, 0.01, hyper, weights)

    for _ in range(2):
        before = ops.num_launches
        if fused:
            with ops.fused():
                work()
        else:
            work()
    arrays = params, *state, weights, control, at, history
    return [ops.to_host(array).tobytes() for array in arrays], ops.num_launches - before


def same(rule: str, num_blocks: int, precision: str = "float32", order: str = "forward", **given: float) -> bool:
    with fake_cupy.install(order=order, num_multiprocessors=20):
        alone, two = decided(rule, num_blocks, precision, False, **given)
        fused, one = decided(rule, num_blocks, precision, True, **given)
    assert (two, one) == (2, 1)
    return alone == fused


@pytest.mark.parametrize("rule", ELEMENTWISE)
@pytest.mark.parametrize("decision", DECISIONS)
def test_every_rule_and_decision(rule: str, decision: str) -> None:
    assert same(rule, 3, **DECISIONS[decision])


@pytest.mark.parametrize("decision", ["clipped by value", "with momentum"])
def test_what_a_decision_hands_on_counts(decision: str) -> None:
    with fake_cupy.install():
        plain, given = (decided("momentum", 3, "float32", True, **one)[0] for one in ({}, DECISIONS[decision]))
    assert plain[0] != given[0]


@pytest.mark.parametrize("num_blocks", [1, 2, 31, 33, 133, 300])
def test_lengths(num_blocks: int) -> None:
    assert same("momentum", num_blocks)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("order", ORDERS)
def test_weights_follow_in_any_order_of_the_blocks(precision: str, order: str) -> None:
    assert same("adam", 5, precision, order)


def test_where_not_all_blocks_run_at_once_each_is_launched_alone() -> None:
    with fake_cupy.install(num_multiprocessors=1):
        few, launches = decided("adam", 9, "float32", True)
    assert launches == 2
    with fake_cupy.install(num_multiprocessors=2):
        many, launches = decided("adam", 9, "float32", True)
    assert launches == 1
    agree(few, many)


def compare(_: Device) -> None:
    fused, alone = (decided("momentum", 9, "float32", fused, clip_norm=0.01)[0] for fused in (True, False))
    agree(fused, alone)


FAULTS = (
    Fault("no barrier of the grid", compare, "    grid_barrier(reinterpret_cast<unsigned*>(barrier));\n", ""),
    Fault("a barrier of a part of the grid", compare, "    grid_barrier(rein", "    if (blockIdx.x) grid_barrier(rein"),
    Fault("each block its own norm", compare, "tree_over(nodes, nodes + MOST_PARTS, parts)", "nodes[blockIdx.x]"),
    Fault(
        "a block that is left out",
        compare,
        "grads, span * part, span, num_blocks",
        "grads, span * part, span, num_blocks - 1",
    ),
    Fault(
        "words written too early", compare, "step = gridDim.x;", "step = gridDim.x;\n    at.control[LOSS_SCALE] = 4;"
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_that_shows(fault, monkeypatch), "in no order"
