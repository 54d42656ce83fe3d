"""The loop of a run: steps, evaluations, records, checkpoints, and its end."""

from collections.abc import Callable
from dataclasses import dataclass

from ddpgd.comm import whereabouts
from ddpgd.comm.transport import Transport
from ddpgd.comm.whereabouts import ACTIVITY, CHECKPOINT, EVALUATION, INPUT, RECORD, STEP
from ddpgd.data.batches import Batches
from ddpgd.errors import Interrupted, NonFiniteError
from ddpgd.optim.schedules import Plateau
from ddpgd.training.bookkeeping import Bookkeeping
from ddpgd.training.convergence import Criteria
from ddpgd.training.counters import Record
from ddpgd.training.evaluate import Evaluate
from ddpgd.training.protocols import Disturbance, Keeper, Observer, Saves, Sync
from ddpgd.training.replicas import Replicas
from ddpgd.training.step_result import StepResult
from ddpgd.training.stopping import StopRequest
from ddpgd.training.timing import SLOW_STEPS

_LOST = 10
"""Skipped updates in a row at the end of a run that make it a failed one."""


_NONE = Criteria()


@dataclass(frozen=True)
class Intervals:
    """The length of a run and the intervals of its events, in steps; `criteria` may end it before."""

    total_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int | None
    criteria: Criteria = _NONE
    plateau: Plateau | None = None
    check_every: int | None = None


class Trainer:
    """Runs steps from where its counters stand."""

    def __init__(
        self,
        step: Sync,
        test: Evaluate,
        batches: Batches,
        transport: Transport,
        pace: Intervals,
        stop: StopRequest,
        saves: Saves,
        observer: Observer,
        layer_figures: Callable[[StepResult, bool], Record],
        skip_non_finite: bool = False,
        place: str = "",
        validate: Evaluate | None = None,
        lower_lr: Callable[[], None] = lambda: None,
        faults: Disturbance | None = None,
        replicas: Replicas | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        """
        Args:
            layer_figures: (result, evaluated) -> figures of layers, for a record; every rank calls it.
            validate: On samples that are held out.
            lower_lr: Gives the steps to come the counters' factor on learning rates.
            place: Of the rank in its grid, for what is told of a failure.
            faults: On purpose.
            replicas: Compares what ranks hold in common; None: nothing.
            keeper: Keeps what a run goes on from when ranks die; None: it ends.
        """
        self._step = step
        self._test = test
        self._validate = validate
        self._lower_lr = lower_lr
        self._faults = faults
        self._replicas = replicas
        self._keeper = keeper
        self._checked_at = step.state.counters.step
        self._batches = batches
        self._transport = transport
        self._pace = pace
        self._counters = step.state.counters
        self._stop = stop
        self._saves = saves
        self._observer = observer
        self._layer_figures = layer_figures
        self._skip_non_finite = skip_non_finite
        self._rank = f"rank {transport.rank} ({place})" if place else f"rank {transport.rank}"
        self._books = Bookkeeping(step.state, batches, step.exchange)
        self._own_figures: Record = {}
        self._saved_at = -1
        self._skipped_in_a_row = 0
        self._slow_ranks: set[int] = set()
        self._here = whereabouts.here()
        self._here[STEP] = self._counters.step

    def run(self) -> Record:
        """Trains to the end; returns the figures of the run. Interrupted, NonFiniteError: it ended early, on all ranks."""
        try:
            self._loop()
        except Exception as error:
            error.add_note(f"ddpgd: on {self._rank}, after {self._counters.step} steps")
            raise
        finally:
            self._batches.close()
        own = self._own_figures or self._step.figures()
        return self._books.figures(self._transport) | own | {"ended": self._ended()}

    def _loop(self) -> None:
        counters, pace = self._counters, self._pace
        while counters.step < pace.total_steps and not pace.criteria.met(counters):
            before = counters.step
            self._here[ACTIVITY] = INPUT
            if self._faults:
                self._faults.before(before)
            keeper = self._keeper if self._ranks_meet_after(before + 1) else None
            if keeper:
                keeper.keep()
            count, observe = self._steps_to_next_event()
            result = self._step.run(counters.step, count, bool(self._stop), observe)
            if result.halted:
                self._not_finite(counters.step + result.num_steps - 1)
            self._skipped_in_a_row = 0 if result.loss_sums else self._skipped_in_a_row + result.num_steps
            self._books.count(result, observe)
            self._here[STEP] = counters.step
            self._here[ACTIVITY] = RECORD
            if pace.check_every and _crossed_multiple(before, counters.step, pace.check_every):
                self._check_replicas()
            is_due = _crossed_multiple(before, counters.step, pace.evaluate_every)
            is_logged = observe or _crossed_multiple(before, counters.step, pace.log_every)
            is_best = is_due and self._evaluate(is_due)
            if is_due or is_logged:
                counters.see_grad_norm(result.grad_norm)
            ends = counters.step == pace.total_steps or bool(pace.criteria.met(counters))
            if ends and not is_due:
                is_best = self._evaluate(is_due)
            evaluated = is_due or ends
            is_saved = is_best or (
                pace.checkpoint_every and _crossed_multiple(before, counters.step, pace.checkpoint_every)
            )
            if is_saved:
                self._saves.make_room()  # before the record: no more steps are told of than a restart may lose
            if evaluated or is_logged:
                own = {name: value for name, value in self._own_figures.items() if isinstance(value, int | float)}
                record = self._books.record(result, evaluated) | self._layer_figures(result, evaluated)
                self._observer.record(record | (own if evaluated else {}))
            self._observer.step(counters)
            if is_saved:
                self._checkpoint()
            if result.stop and not ends:
                self._interrupt()
            if keeper:
                self._transport.barrier()
                keeper.complete()
        if counters.evaluated_at != counters.step:
            self._evaluate(is_due=False)
        self._last_checkpoint()
        if self._skipped_in_a_row >= min(_LOST, pace.total_steps):
            raise NonFiniteError(
                f"the last {self._skipped_in_a_row} updates were skipped, because their gradients had NaN or infinity: "
                "training stopped there; lower --lr, or set --clip-norm"
            )

    def _evaluate(self, is_due: bool) -> bool:
        """Evaluates the params; with validation samples, on the test samples only if they are the best so far: then True.

        `is_due`: at an interval. Other evaluations, made because a run ends, lower no learning rate: it may go on.
        """
        state, counters = self._step.state, self._counters
        self._here[ACTIVITY] = EVALUATION
        is_best = self._validate is not None and counters.see_validation(
            *self._validate(state.params, state.weights), is_due
        )
        if is_due and self._pace.plateau and counters.see_plateau(self._pace.plateau):
            self._lower_lr()
            self._observer.say(f"step {counters.step}: the loss is on a plateau; the learning rate is lowered")
        if is_best or self._validate is None:
            counters.see_test(*self._test(state.params, state.weights))
        self._own_figures = self._step.figures()
        self._here[ACTIVITY] = RECORD
        self._look_for_slow_rank()
        return is_best

    def _look_for_slow_rank(self) -> None:
        """Tells once of each rank that it is slow."""
        rank, factor = self._books.slow_rank(self._transport) or (-1, 0.0)
        if rank >= 0 and rank not in self._slow_ranks:
            self._slow_ranks.add(rank)
            self._observer.say(
                f"rank {rank} is slow: each of its last {SLOW_STEPS} steps took at least {int(10 * factor) / 10:g} times as "
                "long as the others'; `ddpgd doctor` on all ranks looks for reasons"
            )

    def _check_replicas(self) -> None:
        """Compares what ranks hold in common, before a checkpoint too: that one is whole."""
        if self._replicas and self._checked_at != self._counters.step:
            self._checked_at = self._counters.step
            if healed := self._replicas.check():
                self._observer.say(healed)

    def _ended(self) -> str:
        """Returns why the run ended before its last step; empty: it did not."""
        return self._pace.criteria.met(self._counters) if self._counters.step < self._pace.total_steps else ""

    def _steps_to_next_event(self) -> tuple[int, bool]:
        """Number of steps until the host has something to do; and whether the next one is logged."""
        step, pace = self._counters.step, self._pace
        events = [pace.total_steps - 1, _next(step, pace.log_every) - 1, _next(step, pace.evaluate_every)]
        if pace.checkpoint_every:
            events.append(_next(step, pace.checkpoint_every))
        if pace.check_every:
            events.append(_next(step, pace.check_every))
        if pace.criteria.loss_fall is not None:
            events.append(_next(step, self._batches.steps_per_epoch))
        if self._faults and (at := self._faults.next_step(step)):
            events.append(at)
        count = min(events) - step if step else 1
        logged = step == 0 or step + 1 == pace.total_steps or (step + 1) % pace.log_every == 0
        return max(1, count), logged

    def _ranks_meet_after(self, step: int) -> bool:
        """Returns whether a step, run alone, ends with more than its update: with what ranks do together."""
        pace = self._pace
        intervals = pace.log_every, pace.evaluate_every, pace.checkpoint_every, pace.check_every
        ends = step == pace.total_steps or step % self._batches.steps_per_epoch == 0
        return ends or step == 1 or any(every and step % every == 0 for every in intervals)

    def _checkpoint(self) -> None:
        if self._saved_at != self._counters.step:
            self._check_replicas()
            self._here[ACTIVITY] = CHECKPOINT
            self._saves.begin()
            self._saved_at = self._counters.step

    def _last_checkpoint(self) -> None:
        self._saves.make_room()
        self._checkpoint()
        self._saves.finish()

    def _interrupt(self) -> None:
        self._last_checkpoint()
        reasons = filter(None, self._transport.all_gather_objects(self._stop.reason))
        reason = next(reasons, "a rank asked for it")
        raise Interrupted(
            f"stopped after step {self._counters.step} of {self._pace.total_steps}: {reason}; "
            "the checkpoint is written, go on with --resume"
        )

    def _not_finite(self, step: int) -> None:
        found = self._transport.all_gather_objects(self._step.non_finite(step))
        places = [f"rank {rank}, {place}" for rank, place in enumerate(found) if place]
        place = places[0] if places else "the sum over all ranks, though each micro-batch is finite"
        line = f"step {step + 1}: the gradient is not finite in {place}"
        if not self._skip_non_finite:
            raise NonFiniteError(f"{line}; lower --lr, set --clip-norm, or type --non-finite skip")
        self._observer.say(f"{line}; the update is skipped on all ranks")


def _next(step: int, every: int) -> int:
    """The first multiple of `every` after `step`."""
    return (step // every + 1) * every


def _crossed_multiple(before: int, now: int, every: int) -> bool:
    """True if a multiple of `every` lies after `before`, and not after `now`."""
    return now // every > before // every
