"""The evaluations of a run: on which samples, and what follows from them."""

from collections.abc import Callable

from ddpgd.comm import whereabouts
from ddpgd.comm.transport import Transport
from ddpgd.comm.whereabouts import ACTIVITY, EVALUATION, RECORD
from ddpgd.optim.schedules import Plateau
from ddpgd.training.bookkeeping import Bookkeeping
from ddpgd.training.counters import Record
from ddpgd.training.evaluate import Evaluate
from ddpgd.training.protocols import Observer, Sync
from ddpgd.training.timing import SLOW_STEPS


class Evaluations:
    """Evaluates the params as training goes on. Every rank makes each."""

    def __init__(
        self,
        step: Sync,
        test: Evaluate,
        validate: Evaluate | None,
        plateau: Plateau | None,
        lower_lr: Callable[[], None],
    ) -> None:
        """
        Args:
            step: Whose params are evaluated.
            test: On the test samples.
            validate: On samples that are held out; None: there are none.
            plateau: When learning rates are lowered; None: never.
            lower_lr: Gives the steps to come the counters' factor on learning rates.
        """
        self._step = step
        self._test = test
        self._validate = validate
        self._plateau = plateau
        self._lower_lr = lower_lr
        self._slow_ranks: set[int] = set()
        self._here = whereabouts.here()
        self.figures: Record = {}
        """What `step` says of itself, at the last evaluation."""

    def evaluate(self, is_due: bool, observer: Observer) -> bool:
        """Evaluates; with validation samples, on the test samples only if the params are the best so far: then True.

        `is_due`: at an interval. Other evaluations, made because a run ends, lower no learning rate: it may go on.
        """
        state, counters = self._step.state, self._step.state.counters
        self._here[ACTIVITY] = EVALUATION
        is_best = self._validate is not None and counters.see_validation(
            *self._validate(state.params, state.weights), is_due
        )
        if is_due and self._plateau and counters.see_plateau(self._plateau):
            self._lower_lr()
            observer.say(f"step {counters.step}: the loss is on a plateau; the learning rate is lowered")
        if is_best or self._validate is None:
            counters.see_test(*self._test(state.params, state.weights))
        self.figures = self._step.figures()
        self._here[ACTIVITY] = RECORD
        return is_best

    def look_for_slow_rank(self, books: Bookkeeping, transport: Transport, observer: Observer) -> None:
        """Tells once of each rank that it is slow."""
        rank, factor = books.slow_rank(transport) or (-1, 0.0)
        if rank >= 0 and rank not in self._slow_ranks:
            self._slow_ranks.add(rank)
            observer.say(
                f"rank {rank} is slow: each of its last {SLOW_STEPS} steps took at least {int(10 * factor) / 10:g} times as "
                "long as the others'; `ddpgd doctor` on all ranks looks for reasons"
            )
