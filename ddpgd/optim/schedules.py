"""Learning-rate schedules: functions of the step, made once from plain numbers."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""step (from 0) -> learning rate of that step."""


def make(name: str, lr: float, total_steps: int, warmup_steps: int) -> Schedule:
    """The schedule called `name`, after a linear warm-up: step s of the warm-up has lr (s + 1) / warmup_steps.

    constant: lr.
    cosine:   lr (1 + cos(pi t / T)) / 2, t steps after the warm-up of T that remain.
              Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """
    remaining = max(1, total_steps - warmup_steps)
    shapes: dict[str, Schedule] = {
        "constant": lambda _: lr,
        "cosine": lambda step: lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup_steps) / remaining))),
    }
    shape = shapes[name]

    def schedule(step: int) -> float:
        return lr * (step + 1) / warmup_steps if step < warmup_steps else shape(step)

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
