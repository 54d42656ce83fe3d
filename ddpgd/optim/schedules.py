"""Learning-rate schedules: functions of the step, made once from plain numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Rates(NamedTuple):
    """The learning rate of a step, and the momentum that takes the place of the rule's own; 0: none does."""

    lr: float
    momentum: float = 0.0


class Plateau(NamedTuple):
    """The rule by which evaluations lower the learning rate.

    Attributes:
        factor: The factor on it.
        patience: Evaluations in a row without a better loss after which it is lowered.
        threshold: Fraction by which a better loss is below the best so far.
    """

    factor: float
    patience: int
    threshold: float

    def see(self, loss: float | None, best: float | None, waited: int) -> tuple[float | None, int, bool]:
        """Returns the best loss after an evaluation, the evaluations without a better one, and whether to lower the rate.

        Args:
            loss: That of the evaluation; None: it is not finite.
            best: The best one before; None: there was none.
            waited: Evaluations since then, or since the rate was lowered.
        """
        if loss is not None and (best is None or loss < best * (1 - self.threshold)):
            return loss, 0, False
        return (best, 0, True) if waited + 1 >= self.patience else (best, waited + 1, False)


Schedule = Callable[[int], Rates]
"""step (from 0) -> rates of that step."""


@dataclass(frozen=True)
class Curve:
    """A schedule after its warm-up.

    Attributes:
        name: The value of `--schedule`.
        factor: Fraction of the steps after the warm-up that are done, 0 to 1, and the values of `options` -> factor on the
            learning rate, 0 to 1.
        source: The publication, if there is one.
        options: The options that have no meaning without this schedule.
        momentum: As `factor` -> momentum in the place of the rule's own, above 0; None: the rule's own stays.
    """

    name: str
    factor: Callable[..., float]
    source: str = ""
    options: tuple[str, ...] = ()
    momentum: Callable[..., float] | None = None


def _cosine(fraction: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * fraction))


def _after_restarts(fraction: float, restarts: int) -> float:
    place = fraction * (restarts + 1)
    return _cosine(place - min(restarts, math.floor(place)))


def _cycled(fraction: float, rise_fraction: float, start: float, top: float, end: float) -> float:
    """Returns the value between start, top at `rise_fraction` of the run, and end, along halves of cosines."""
    if fraction < rise_fraction:
        return start + (top - start) * (1.0 - _cosine(fraction / rise_fraction))
    return end + (top - end) * _cosine((fraction - rise_fraction) / (1.0 - rise_fraction))


def _one_cycle(
    fraction: float, rise_fraction: float, div_factor: float, final_div_factor: float, *_momenta: float
) -> float:
    start = 1.0 / div_factor
    return _cycled(fraction, rise_fraction, start, 1.0, start / final_div_factor)


def _one_cycle_momentum(
    fraction: float, rise_fraction: float, _div: float, _final_div: float, max_momentum: float, min_momentum: float
) -> float:
    return _cycled(fraction, rise_fraction, max_momentum, min_momentum, max_momentum)


_ROWS = (
    Curve("constant", lambda _: 1.0),
    Curve("cosine", _cosine, 'Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017'),
    Curve("restarts", _after_restarts, "the same: the cosine begins anew, after equal parts of the run", ("restarts",)),
    Curve("linear", lambda fraction: 1.0 - fraction, 'Li, Yumer, Ramanan, "Budgeted training", 2020'),
    Curve(
        "step",
        lambda fraction, drops, drop_factor: drop_factor ** min(drops, math.floor(fraction * (drops + 1))),
        'He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016',
        ("drops", "drop_factor"),
    ),
    Curve(
        "one-cycle",
        _one_cycle,
        'Smith, Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2019',
        ("rise_fraction", "div_factor", "final_div_factor", "max_momentum", "min_momentum"),
        _one_cycle_momentum,
    ),
    Curve(
        "reduce-on-plateau",
        lambda _fraction, *_options: 1.0,
        "the learning rate stays, until evaluations lower it; see `Plateau`",
        ("plateau_factor", "plateau_patience", "plateau_threshold"),
    ),
    Curve("exponential", lambda fraction, end_factor: end_factor**fraction, options=("end_factor",)),
)

PLATEAU = "reduce-on-plateau"
"""The schedule that follows evaluations, not steps alone."""

SCHEDULES = {curve.name: curve for curve in _ROWS}
"""The learning-rate schedules, by name."""


def make(name: str, lr: float, total_steps: int, warmup_steps: int, **options: float) -> Schedule:
    """Returns the schedule called `name`, after a linear warm-up.

    Args:
        name: A key of SCHEDULES.
        lr: The learning rate after the warm-up.
        total_steps: Steps of the run, the warm-up included.
        warmup_steps: Steps of the warm-up; step s of them has the learning rate lr (s + 1) / warmup_steps.
        options: The values of the schedule's options.
    """
    curve, remaining = SCHEDULES[name], max(1, total_steps - warmup_steps)
    values = [options[option] for option in curve.options]

    def schedule(step: int) -> Rates:
        if step < warmup_steps:
            return Rates(lr * (step + 1) / warmup_steps)
        fraction = min(1.0, (step - warmup_steps) / remaining)
        momentum = curve.momentum(fraction, *values) if curve.momentum else 0.0
        return Rates(lr * curve.factor(fraction, *values), momentum)

    return schedule


def scale(rule: str | None, global_batch: int) -> float:
    """Returns the factor on the learning rate that `rule` ("linear:256", "sqrt:256" or None) gives to `global_batch`.

    linear: Goyal et al., "Accurate, large minibatch SGD", 2017. sqrt: Krizhevsky, "One weird trick", 2014.
    """
    if rule is None:
        return 1.0
    kind, base = rule.split(":")
    ratio = global_batch / int(base)
    return ratio if kind == "linear" else math.sqrt(ratio)
