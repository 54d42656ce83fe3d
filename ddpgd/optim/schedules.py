"""Learning-rate schedules: functions of the step, made once from plain numbers."""

import math
from collections.abc import Callable
from typing import NamedTuple

Schedule = Callable[[int], float]
"""step (from 0) -> learning rate of that step."""


class Shape(NamedTuple):
    """A schedule after its warm-up: the factor on the learning rate at a fraction, 0 to 1, of the steps that remain."""

    factor: Callable[[float], float]
    formula: str
    source: str


SCHEDULES = {
    "constant": Shape(lambda _: 1.0, "lr", "-"),
    "cosine": Shape(
        lambda fraction: 0.5 * (1.0 + math.cos(math.pi * fraction)),
        "lr (1 + cos(pi t / T)) / 2 at step t of T",
        'Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017',
    ),
}


def make(name: str, lr: float, total_steps: int, warmup_steps: int) -> Schedule:
    """The schedule called `name`, after a linear warm-up: step s of the warm-up has lr (s + 1) / warmup_steps."""
    factor, remaining = SCHEDULES[name].factor, max(1, total_steps - warmup_steps)

    def schedule(step: int) -> float:
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        return lr * factor(min(1.0, (step - warmup_steps) / remaining))

    return schedule


def scale(rule: str | None, global_batch: int) -> float:
    """The factor on the learning rate that `rule` ("linear:256", "sqrt:256" or None) gives to `global_batch`.

    linear: Goyal et al., "Accurate, large minibatch SGD", 2017. sqrt: Krizhevsky, "One weird trick", 2014.
    """
    if rule is None:
        return 1.0
    kind, base = rule.split(":")
    ratio = global_batch / int(base)
    return ratio if kind == "linear" else math.sqrt(ratio)
