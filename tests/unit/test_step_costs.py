"""Costs of the steps of several ranks."""

import time

import numpy as np
import pytest

from ddpgd.training.step_result import StepResult
from ddpgd.training.timing import KEPT, SLOW_STEPS, StepCosts, late_rank, shares, slow_rank


def test_what_others_wait_for_is_no_exchange() -> None:
    """Two steps of two ranks; the second computes longer, so the first waits for it."""
    first = np.array([[100.0, 100.0], [50.0, 60.0], [40.0, 30.0], [0.0, 0.0]])
    second = np.array([[100.0, 100.0], [70.0, 80.0], [20.0, 10.0], [0.0, 0.0]])
    found = shares([first, second])
    assert found == pytest.approx({"compute": 0.65, "wait": 0.10, "exchange": 0.15, "update": 0.10})
    assert sum(found.values()) == pytest.approx(1)


def test_waiting_of_stages_is_the_bubble() -> None:
    first = np.array([[100.0], [80.0], [10.0], [30.0]])
    second = np.array([[100.0], [80.0], [10.0], [10.0]])
    found = shares([first, second])
    assert found == pytest.approx({"compute": 0.6, "wait": 0, "exchange": 0.1, "update": 0.1, "bubble": 0.2})


def test_what_is_kept_of_steps_has_a_bound() -> None:
    costs = StepCosts()
    for _ in range(7):
        costs.add(StepResult(KEPT // 2, 1, [], False, 0.0, False, 0.1, None, 0.0, 1.0, 0.5, 0.1, 1, None))
    kept = costs.step_us, costs.timed_us, costs.compute_us, costs.exchange_us, costs.stage_wait_us
    assert {len(one) <= 2 * KEPT for one in kept} == {True}
    assert len(costs.step_us) >= KEPT


def test_no_steps_have_no_shares() -> None:
    assert shares([StepCosts().recent()] * 2) == {}


def of_steps(compute_us: list[float], exchange_us: list[float]) -> np.ndarray:
    compute, exchange = np.array(compute_us), np.array(exchange_us)
    return np.array([compute + exchange, compute, exchange, np.zeros_like(compute)])


def test_the_rank_that_comes_last_is_named() -> None:
    """Rank 2 computes twice as long; the others wait for it half of the time, and poll or sleep meanwhile."""
    early, late = of_steps([45.0] * 9, [55.0] * 9), of_steps([90.0] * 9, [10.0] * 9)
    for shares_of_others in (0.98, 0.5):
        found = late_rank([early, early, late], [shares_of_others, shares_of_others, 0.97])
        assert found is not None
        assert found["rank"] == 2
        assert found["share"] == pytest.approx(0.45)


def test_a_rank_that_is_stopped_inside_exchanges_is_named() -> None:
    """The exchange then takes long on all ranks, and times alone do not tell which is the one."""
    alike = of_steps([10.0] * 9, [90.0] * 9)
    found = late_rank([alike, alike], [0.95, 0.19])
    assert found is not None
    assert found == {"rank": 1, "share": pytest.approx(0.8), "run_share": 0.19, "run_share_most": 0.95}


def test_ranks_alike_and_one_alone_are_not_late() -> None:
    alike = of_steps([50.0] * 9, [50.0] * 9)
    assert late_rank([alike, alike, alike], [0.5, 0.45, 0.5]) is None
    assert late_rank([alike], [0.1]) is None
    assert late_rank([StepCosts().recent()] * 2, [1.0, 0.1]) is None


def test_a_thread_that_sleeps_has_no_core() -> None:
    costs = StepCosts()
    time.sleep(0.2)
    assert costs.run_share() < 0.5


def test_steps_whose_exchange_nobody_saw_count_but_have_no_parts() -> None:
    costs = StepCosts()
    facts = {"num_steps": 4, "samples": 40, "loss_sums": [], "halted": False, "squared_norm_sum": 0.0, "stop": False}
    facts |= {"lr": 0.1, "loss_scale": None, "grad_norm": 1.0, "wire_bytes": 7, "wire_loss": None}
    costs.add(StepResult(**facts, step_s=8e-6, compute_s=8e-6, exchange_s=None))  # type: ignore[arg-type]
    costs.add(StepResult(**facts | {"num_steps": 1}, step_s=10e-6, compute_s=6e-6, exchange_s=3e-6))  # type: ignore[arg-type]
    assert (costs.num_steps, costs.wire_bytes) == (5, 35)
    assert list(costs.step_us) == pytest.approx([2.0] * 4 + [10.0])
    assert shares([costs.recent()]) == pytest.approx({"compute": 0.6, "wait": 0.0, "exchange": 0.3, "update": 0.1})
    assert (costs.timed_s, costs.compute_s, costs.update_s) == pytest.approx((10e-6, 6e-6, 1e-6))


SECOND = [1.0] * SLOW_STEPS


@pytest.mark.parametrize(
    ("everybody", "found"),
    [
        ([SECOND], None),
        ([SECOND, SECOND], None),
        ([SECOND, [2.5] * 20], (1, 2.5)),
        ([[3.0] * 20, SECOND, SECOND, [0.9] * 20], (0, 3.0)),
        ([SECOND, [2.5] * 19 + [1.9]], None),
        ([SECOND, [9.0] * 19], None),
        ([SECOND, [*SECOND[1:], 100.0]], None),
    ],
)
def test_a_rank_is_slow_whose_every_step_takes_twice_the_others_median(
    everybody: list[list[float]], found: tuple[int, float] | None
) -> None:
    assert slow_rank(everybody) == found
