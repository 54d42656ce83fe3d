"""The loop of a run: steps, evaluations, records, checkpoints, and its end."""

from collections.abc import Callable

from ddpgd.comm import whereabouts
from ddpgd.comm.transport import Transport
from ddpgd.comm.whereabouts import ACTIVITY, CHECKPOINT, INPUT, RECORD, STEP
from ddpgd.errors import Interrupted, NonFiniteError
from ddpgd.training.bookkeeping import Bookkeeping
from ddpgd.training.counters import Record
from ddpgd.training.evaluations import Evaluations
from ddpgd.training.intervals import Intervals, crossed
from ddpgd.training.protocols import Disturbance, Keeper, Observer, Saves, Sync
from ddpgd.training.replicas import Replicas
from ddpgd.training.step_result import StepResult
from ddpgd.training.stopping import StopRequest

_LOST = 10
"""Skipped updates in a row at the end of a run that make it a failed one."""


class Trainer:
    """Runs steps from where its counters stand."""

    def __init__(
        self,
        step: Sync,
        evaluations: Evaluations,
        transport: Transport,
        pace: Intervals,
        stop: StopRequest,
        saves: Saves,
        observer: Observer,
        layer_figures: Callable[[StepResult, bool], Record],
        faults: Disturbance,
        replicas: Replicas,
        keeper: Keeper | None,
        skip_non_finite: bool,
        place: str,
    ) -> None:
        """
        Args:
            layer_figures: (result, evaluated) -> figures of layers, for a record; every rank calls it.
            faults: On purpose.
            replicas: Compares what ranks hold in common.
            keeper: Keeps what a run goes on from when ranks die; None: it ends.
            place: Of the rank in its grid, for what is told of a failure.
        """
        self._step = step
        self._evaluations = evaluations
        self._transport = transport
        self._pace = pace
        self._stop = stop
        self._saves = saves
        self._observer = observer
        self._layer_figures = layer_figures
        self._faults = faults
        self._replicas = replicas
        self._keeper = keeper
        self._skip_non_finite = skip_non_finite
        self._rank = f"rank {transport.rank} ({place})" if place else f"rank {transport.rank}"
        self._counters = step.state.counters
        self._books = Bookkeeping(step.state, step.batches, step.exchange)
        self._checked_at = self._counters.step
        self._saved_at = -1
        self._skipped_in_a_row = 0
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
            self._step.batches.close()
        own = self._evaluations.figures or self._step.figures()
        return self._books.figures(self._transport) | own | {"ended": self._pace.ended_by(self._counters)}

    def _loop(self) -> None:
        counters, pace = self._counters, self._pace
        while not pace.is_over(counters):
            before = counters.step
            self._here[ACTIVITY] = INPUT
            self._faults.before(before)
            keeper = self._keeper if pace.ranks_meet_after(before + 1) else None
            if keeper:
                keeper.keep()
            count, observe = pace.to_next_event(before, self._faults.next_step(before))
            result = self._step.run(before, count, bool(self._stop), observe)
            if result.halted:
                self._not_finite(before + result.num_steps - 1)
            self._skipped_in_a_row = 0 if result.loss_sums else self._skipped_in_a_row + result.num_steps
            self._books.count(result, observe)
            self._here[STEP] = counters.step
            self._here[ACTIVITY] = RECORD
            self._after(before, result, observe)
            if result.stop and not pace.is_over(counters):
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

    def _after(self, before: int, result: StepResult, observe: bool) -> None:
        """Does what is due after the steps since `before`: comparisons, an evaluation, a record, a checkpoint."""
        counters, pace, now = self._counters, self._pace, self._counters.step
        if crossed(before, now, pace.check_every):
            self._check_replicas()
        is_due = crossed(before, now, pace.evaluate_every)
        is_logged = observe or crossed(before, now, pace.log_every)
        is_best = is_due and self._evaluate(is_due)
        if is_due or is_logged:
            counters.see_grad_norm(result.grad_norm)
        ends = pace.is_over(counters)
        if ends and not is_due:
            is_best = self._evaluate(is_due)
        evaluated = is_due or ends
        is_saved = is_best or crossed(before, now, pace.checkpoint_every)
        if is_saved:
            self._saves.wait_for_last()  # before the record: no more steps are told of than a restart may lose
        if evaluated or is_logged:
            own = {name: value for name, value in self._evaluations.figures.items() if isinstance(value, int | float)}
            record = self._books.record(result, evaluated) | self._layer_figures(result, evaluated)
            self._observer.record(record | (own if evaluated else {}))
        self._observer.step(counters)
        if is_saved:
            self._checkpoint()

    def _evaluate(self, is_due: bool) -> bool:
        is_best = self._evaluations.evaluate(is_due, self._observer)
        self._evaluations.look_for_slow_rank(self._books, self._transport, self._observer)
        return is_best

    def _check_replicas(self) -> None:
        """Compares what ranks hold in common, before a checkpoint too: that one is whole."""
        if self._checked_at != self._counters.step:
            self._checked_at = self._counters.step
            if healed := self._replicas.check():
                self._observer.say(healed)

    def _checkpoint(self) -> None:
        if self._saved_at != self._counters.step:
            self._check_replicas()
            self._here[ACTIVITY] = CHECKPOINT
            self._saves.begin()
            self._saved_at = self._counters.step

    def _last_checkpoint(self) -> None:
        self._saves.wait_for_last()
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
