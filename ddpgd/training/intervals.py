"""The length of a run and what happens at which of its steps."""

from dataclasses import dataclass

from ddpgd.optim.schedules import Plateau
from ddpgd.training.convergence import Criteria
from ddpgd.training.counters import Counters

_NONE = Criteria()


@dataclass(frozen=True)
class Intervals:
    """The length of a run and the intervals of its events, in steps; `criteria` may end it before.

    >>> pace = Intervals(total_steps=100, log_every=10, evaluate_every=30, checkpoint_every=None, steps_per_epoch=25)
    >>> pace.to_next_event(31)
    (8, False)
    """

    total_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int | None
    steps_per_epoch: int
    criteria: Criteria = _NONE
    plateau: Plateau | None = None
    check_every: int | None = None

    def is_over(self, counters: Counters) -> bool:
        """Returns whether no step is left."""
        return counters.step >= self.total_steps or bool(self.criteria.met(counters))

    def ended_by(self, counters: Counters) -> str:
        """Returns why the run ended before its last step; empty: it did not."""
        return self.criteria.met(counters) if counters.step < self.total_steps else ""

    def to_next_event(self, step: int, other: int | None = None) -> tuple[int, bool]:
        """Returns the number of steps until the host has something to do, and whether the next one is logged.

        `other`: a later step before which something else happens.
        """
        events = [self.total_steps - 1, _next(step, self.log_every) - 1, _next(step, self.evaluate_every)]
        events += [_next(step, every) for every in (self.checkpoint_every, self.check_every) if every]
        if self.criteria.loss_fall is not None:
            events.append(_next(step, self.steps_per_epoch))
        if other:
            events.append(other)
        count = min(events) - step if step else 1
        logged = step == 0 or step + 1 == self.total_steps or (step + 1) % self.log_every == 0
        return max(1, count), logged

    def ranks_meet_after(self, step: int) -> bool:
        """Returns whether a step, run alone, ends with more than its update: with what ranks do together."""
        intervals = self.log_every, self.evaluate_every, self.checkpoint_every, self.check_every
        ends = step == self.total_steps or step % self.steps_per_epoch == 0
        return ends or step == 1 or any(every and step % every == 0 for every in intervals)


def crossed(before: int, now: int, every: int | None) -> bool:
    """Returns whether a multiple of `every` lies after `before`, and not after `now`. None or 0: there are none.

    >>> crossed(9, 12, 10)
    True
    """
    return every is not None and every > 0 and now // every > before // every


def _next(step: int, every: int) -> int:
    """The first multiple of `every` after `step`."""
    return (step // every + 1) * every
