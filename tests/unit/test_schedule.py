"""Learning rates at the steps where the formula can be read off."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from ddpgd.config.schema import OPTIONS, Config, resolve
from ddpgd.optim import schedules
from ddpgd.optim.schedules import SCHEDULES
from ddpgd.run.build_parts import learning_rates

over_schedules = pytest.mark.parametrize("name", SCHEDULES)
falling = pytest.mark.parametrize("name", [name for name, curve in SCHEDULES.items() if curve.momentum is None])
"""Schedules that begin at the learning rate: one that cycles rises to it, and refuses a warm-up."""


def schedule(name: str, lr: float, total_steps: int, warmup_steps: int, **options: float) -> Callable[[float], float]:
    """The learning rates of the schedule of that name, with the defaults of options that are not given."""
    defaults = {option: OPTIONS[option].default for option in SCHEDULES[name].options}
    made: Callable[..., Any] = schedules.make(name, lr, total_steps, warmup_steps, **defaults | options)
    return lambda step: made(step).lr


@pytest.mark.parametrize(
    ("step", "wanted"),
    [(0, 1.0), (25, (1 + math.sqrt(0.5)) / 2), (50, 0.5), (75, (1 - math.sqrt(0.5)) / 2), (100, 0.0), (1000, 0.0)],
)
def test_cosine(step: int, wanted: float) -> None:
    assert schedule("cosine", 0.3, 100, 0)(step) == pytest.approx(0.3 * wanted, abs=1e-15)


@falling
@pytest.mark.parametrize(("step", "wanted"), [(0, 0.1), (1, 0.2), (8, 0.9), (9, 1.0), (10, 1.0)])
def test_a_linear_warm_up_ends_where_the_schedule_begins(name: str, step: int, wanted: float) -> None:
    assert schedule(name, 2.0, 110, 10)(step) == pytest.approx(2.0 * wanted)


def test_cosine_after_a_warm_up_spans_what_remains() -> None:
    rate = schedule("cosine", 2.0, 110, 10)
    assert rate(60) == pytest.approx(1.0)
    assert rate(110) == pytest.approx(0.0, abs=1e-15)
    assert all(rate(step) > rate(step + 1) for step in range(10, 110))


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("linear", {}, {0: 1, 25: 0.75, 50: 0.5, 99: 0.01, 100: 0}),
        ("exponential", {"end_factor": 0.0001}, {0: 1, 25: 0.1, 50: 0.01, 75: 0.001, 100: 0.0001}),
        ("step", {"drops": 1, "drop_factor": 0.5}, {0: 1, 49: 1, 50: 0.5, 99: 0.5, 100: 0.5}),
        ("step", {"drops": 3, "drop_factor": 0.1}, {24: 1, 25: 0.1, 50: 0.01, 74: 0.01, 75: 0.001, 100: 0.001}),
        ("restarts", {"restarts": 1}, {0: 1, 25: 0.5, 49: 0.5 + math.cos(0.98 * math.pi) / 2, 50: 1, 75: 0.5, 100: 0}),
        ("restarts", {"restarts": 3}, {0: 1, 25: 1, 50: 1, 75: 1, 87.5: 0.5, 100: 0}),
    ],
)
def test_steps_worked_out_by_hand(name: str, options: dict[str, float], wanted: dict[float, float]) -> None:
    rate = schedule(name, 0.3, 100, 0, **options)
    for step, factor in wanted.items():
        assert rate(step) == pytest.approx(0.3 * factor, abs=1e-15), step


@pytest.mark.parametrize("step", [0, 1, 99, 10_000])
def test_constant(step: int) -> None:
    assert schedule("constant", 0.25, 100, 0)(step) == 0.25


@falling
def test_a_run_of_one_step_has_its_learning_rate(name: str) -> None:
    assert schedule(name, 0.25, 1, 0)(0) == 0.25


@pytest.mark.parametrize(
    ("rule", "global_batch", "wanted"),
    [
        (None, 4096, 1.0),
        ("linear:256", 256, 1.0),
        ("linear:256", 1024, 4.0),
        ("linear:256", 64, 0.25),
        ("sqrt:256", 256, 1.0),
        ("sqrt:256", 1024, 2.0),
        ("sqrt:256", 64, 0.5),
    ],
)
def test_scale(rule: str | None, global_batch: int, wanted: float) -> None:
    assert schedules.scale(rule, global_batch) == wanted


@falling
@pytest.mark.parametrize("warmup_steps", [0, 1, 30])
def test_a_schedule_begins_at_the_learning_rate_and_never_leaves_0_to_it(name: str, warmup_steps: int) -> None:
    rate = schedule(name, 0.5, 100, warmup_steps)
    assert rate(warmup_steps) == 0.5
    assert all(0 <= rate(step) <= 0.5 for step in range(2 * 100))
    assert rate(100) == rate(1000)


@over_schedules
def test_a_schedule_is_a_choice(name: str) -> None:
    assert SCHEDULES[name].name == name
    assert name in OPTIONS["schedule"].metadata["choices"]


def of_pytorch(step: int, total: int, pct_start: float, lr: float, div: float, final: float) -> float:
    """The learning rate of PyTorch's OneCycleLR with cosine annealing, as its documentation defines it."""
    rise, fall = pct_start * total - 1, total - 1
    low, last = lr / div, lr / div / final
    start, end, part = (low, lr, step / rise) if step <= rise else (lr, last, (step - rise) / (fall - rise))
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


@pytest.mark.parametrize(("rise", "div", "final"), [(0.3, 25.0, 1e4), (0.5, 10.0, 1.0), (0.1, 1.0, 100.0)])
def test_one_cycle_is_that_of_pytorch_with_a_step_more(rise: float, div: float, final: float) -> None:
    """PyTorch's last step has the last rate; ours is that after the last step, as in all schedules here."""
    num_steps = 100
    rate = schedule("one-cycle", 0.3, num_steps, 0, rise_fraction=rise, div_factor=div, final_div_factor=final)
    pct_start = (rise * num_steps + 1) / (num_steps + 1)
    for step in range(num_steps + 1):
        wanted = of_pytorch(step, num_steps + 1, pct_start, 0.3, div, final)
        assert rate(step) == pytest.approx(wanted, rel=1e-9, abs=1e-15)


def test_momentum_cycles_against_the_learning_rate() -> None:
    options = {option: OPTIONS[option].default for option in SCHEDULES["one-cycle"].options}
    made = schedules.make("one-cycle", 0.3, 100, 0, **options)
    wanted = {0: 0.95, 15: 0.9, 30: 0.85, 65: 0.9, 100: 0.95, 200: 0.95}
    assert {step: made(step).momentum for step in wanted} == pytest.approx(wanted)
    assert [made(step).lr for step in (0, 30, 100)] == pytest.approx([0.012, 0.3, 1.2e-6])


@falling
def test_other_schedules_leave_momentum_alone(name: str) -> None:
    options = {option: OPTIONS[option].default for option in SCHEDULES[name].options}
    assert {schedules.make(name, 0.3, 100, 0, **options)(step).momentum for step in range(100)} == {0.0}


@pytest.mark.parametrize(("optimizer", "momentum"), [("lion", 0.95), ("momentum", 0.95), ("sgd", 0), ("rmsprop", 0)])
def test_rules_without_momentum_have_none_to_cycle(optimizer: str, momentum: float) -> None:
    config = resolve(Config(optimizer=optimizer, schedule="one-cycle"), 1)
    assert learning_rates(config, 100)(0).momentum == momentum
