"""Intervals: no run of steps goes past an event, and the steps after which ranks meet are known."""

from hypothesis import given
from hypothesis import strategies as st

from ddpgd.training.convergence import Criteria
from ddpgd.training.counters import Counters
from ddpgd.training.intervals import Intervals, crossed

EVERY = st.integers(1, 40)
PACES = st.builds(
    Intervals,
    total_steps=st.integers(1, 200),
    log_every=EVERY,
    evaluate_every=EVERY,
    checkpoint_every=st.none() | EVERY,
    steps_per_epoch=EVERY,
    criteria=st.sampled_from([Criteria(), Criteria(loss_fall=0.1)]),
    check_every=st.none() | EVERY,
)


def ends_of_steps(pace: Intervals) -> list[int]:
    """The steps after which the host has something to do, by the words of the class."""
    every = [pace.evaluate_every, pace.checkpoint_every, pace.check_every]
    if pace.criteria.loss_fall is not None:
        every.append(pace.steps_per_epoch)
    return [step for step in range(1, pace.total_steps + 1) if any(one and step % one == 0 for one in every)]


@given(PACES, st.none() | st.integers(1, 200))
def test_steps_that_are_made_at_once_end_at_the_next_event(pace: Intervals, other: int | None) -> None:
    step, runs, logged = 0, [], []
    while step < pace.total_steps:
        count, is_logged = pace.to_next_event(step, other if other and other > step else None)
        runs.append((step, step + count))
        logged += [step + 1] if is_logged else []
        assert not is_logged or count == 1
        step += count
    assert runs[-1][1] == pace.total_steps
    ends = {end for _, end in runs}
    assert set(ends_of_steps(pace)) <= ends
    assert other is None or other >= pace.total_steps or other in ends
    assert {1, pace.total_steps, *range(pace.log_every, pace.total_steps + 1, pace.log_every)} == set(logged)


@given(PACES)
def test_ranks_are_known_to_meet_where_something_happens(pace: Intervals) -> None:
    meet = {step for step in range(1, pace.total_steps + 1) if pace.ranks_meet_after(step)}
    assert meet >= {*ends_of_steps(pace), 1, pace.total_steps}


@given(st.integers(0, 300), st.integers(1, 50), EVERY)
def test_a_multiple_is_crossed_or_it_is_not(before: int, count: int, every: int) -> None:
    now = before + count
    assert crossed(before, now, every) == any(step % every == 0 for step in range(before + 1, now + 1))
    assert not crossed(before, now, None)
    assert not crossed(before, now, 0)


def test_the_length_and_the_criteria_end_a_run() -> None:
    pace = Intervals(10, 1, 5, None, 5, Criteria(grad_norm=0.1))
    counters = Counters(step=4, grad_norm=0.5)
    assert not pace.is_over(counters)
    counters.grad_norm = 0.05
    assert pace.is_over(counters)
    assert pace.ended_by(counters)
    counters.step = 10
    assert pace.is_over(counters)
    assert pace.ended_by(counters) == ""
