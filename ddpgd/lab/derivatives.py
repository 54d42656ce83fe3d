"""The mean loss of a function over its samples, its gradient and its second derivatives, over ranks."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.transport import Transport
from ddpgd.lab import scalar_parallel
from ddpgd.lab.functions import Function
from ddpgd.lab.scalar import Value

Vector = NDArray[np.float64]

_TINY = 1e-9
_MISSED = 0.05
"""Share of the gradient up to which a step of Newton's method may leave it as it is."""


def gradient(
    function: Function, point: Vector, transport: Transport, samples: Sequence[int] | None = None
) -> tuple[float, Vector]:
    """Returns the mean loss over samples (None: all) at a point (P,), NaN where there is none, and its gradient (P,)."""
    some = range(function.num_samples) if samples is None else samples
    _move(function, point.tolist())
    return scalar_parallel.gradient(transport, len(some), lambda index: _loss(function, some[index]), function.params)


def mean_loss(function: Function, point: Sequence[float]) -> float:
    """Returns the mean loss at a point, NaN where there is none."""
    _move(function, point)
    return math.fsum(_loss(function, sample).data for sample in range(function.num_samples)) / function.num_samples


def hessian(function: Function, point: Vector, transport: Transport) -> Vector:
    """Returns the second derivatives (P, P) at a point, by central differences of the gradient."""
    found: Vector = np.empty((len(point), len(point)))
    for number, row in enumerate(found):
        aside = np.zeros_like(point)
        aside[number] = 1e-5 * (1 + abs(point[number]))
        above, below = (gradient(function, point + sign * aside, transport)[1] for sign in (1, -1))
        row[...] = (above - below) / (2 * aside[number])
    return (found + found.T) / 2


def newton_step(hessian: Vector, grads: Vector) -> Vector:
    """Returns Newton's step, whose negative leads to where a quadratic has no gradient; NaN where there is none."""
    if np.isfinite(hessian).all():
        found, *_ = np.linalg.lstsq(hessian, grads, rcond=None)
        left = float(np.linalg.norm(hessian @ found - grads))
        if left <= max(_TINY, _MISSED * float(np.linalg.norm(grads))):
            return np.asarray(found, np.float64)
    return np.full_like(grads, math.nan)


def _move(function: Function, point: Sequence[float]) -> None:
    for param, number in zip(function.params, point, strict=True):
        param.data = number


def _loss(function: Function, sample: int) -> Value:
    try:
        return function.loss(sample)
    except (OverflowError, ValueError):
        return Value(math.nan)
