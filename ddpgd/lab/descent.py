"""Gradient descent on a function of a few params: the path that it takes, and a verdict on how it went."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.transport import Transport
from ddpgd.config.units import plural
from ddpgd.errors import InputError
from ddpgd.kernels.philox import permutation
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, Control
from ddpgd.lab import scalar_parallel
from ddpgd.lab.functions import Function
from ddpgd.lab.scalar import Value
from ddpgd.optim import rules
from ddpgd.optim.schedules import Schedule

Vector = NDArray[np.float64]

METHODS = ("newton", "lbfgs")
"""Methods for comparison, which choose their steps by the second derivatives."""

MISTAKES = {
    "forgotten-zero-grad": "gradients of all steps add up: descent swings like with momentum 1, and never settles",
    "plus": "the gradient is added instead of subtracted: the loss climbs",
    "equal-init": "neurons of a layer begin alike, get the same gradient, and stay alike: four of them can do no more than one",
}
"""Classic mistakes, and what one sees."""

SETTLED = 1e-3
"""A descent has settled where Newton's method would not move it by more than this share of the point's norm, or of 1."""
_NEAR = 0.05
_OFTEN = 0.5
_TINY = 1e-9
_SADDLE = "on a saddle point: the loss still falls in some direction"
_DIVERGED = 1e6


class Progress(NamedTuple):
    """A point (P,) of a descent, the mean loss there, and the norm of its gradient."""

    point: Vector
    loss: float
    norm: float


@dataclass(frozen=True)
class Descent:
    """The path of a descent, its start first, and what to say of it."""

    path: list[Progress]
    verdict: str


class Method:
    """A way to get from a point to the next: an update rule of `optim.rules.RULES`, in float64.

    Args:
        rule: Its name.
        schedule: step (from 0) -> learning rate.
        weight_decay: As of `ddpgd train`.
        mistake: A key of MISTAKES; empty: none.
        options: Hyper-parameters by name.
    """

    def __init__(
        self, rule: str, schedule: Schedule, size: int, weight_decay: float, mistake: str, **options: float
    ) -> None:
        self._optimizer = rules.make(rule, Reference(np.float64), size, weight_decay, **options)
        self._schedule = schedule
        self._mistake = mistake
        self._all_grads = np.zeros(size)

    def __call__(self, number: int, point: Vector, grads: Vector) -> Vector:
        """Returns the point after `point` (P,), where the gradient is `grads`; `number`: steps so far."""
        self._all_grads += grads
        control = np.zeros(CONTROL_WORDS)
        control[[Control.SCALE, Control.APPLY, Control.UPDATE]] = -1 if self._mistake == "plus" else 1, 1, number + 1
        control[Control.LR] = self._schedule(number)
        after = point.copy()
        taken = self._all_grads if self._mistake == "forgotten-zero-grad" else grads
        self._optimizer.update(after, taken.copy(), control, after)
        return after


def descend(
    function: Function, step: Callable[[int, Vector, Vector], Vector], num_steps: int, tolerance: float, batch: int, seed: int,
    transport: Transport,
) -> Descent:  # fmt: skip
    """Returns a descent of at most `num_steps`; every rank calls it, and gets the same bits.

    Args:
        function: What to descend, from where its params are.
        step: (number, point, gradient) -> the next point.
        tolerance: The norm of the gradient at which to stop.
        batch: Samples of which a step takes the mean gradient, drawn anew in each pass over all.
        seed: Of the order of samples.
    """
    point = np.array([param.data for param in function.params])
    path: list[Progress] = []
    for number in range(num_steps + 1):
        loss, grads = gradient(function, point, transport)
        path.append(Progress(point, loss, float(np.linalg.norm(grads))))
        _check_start(path[0])
        if path[-1].norm <= tolerance or _has_diverged(path):
            break
        if number < num_steps:
            samples = _batch(number, batch, function.num_samples, seed)
            if len(samples) < function.num_samples:
                _, grads = gradient(function, point, transport, samples)
            point = step(number, point, grads)
    return Descent(path, verdict(function, path, transport))


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


def _move(function: Function, point: Sequence[float]) -> None:
    for param, number in zip(function.params, point, strict=True):
        param.data = number


def _loss(function: Function, sample: int) -> Value:
    try:
        return function.loss(sample)
    except (OverflowError, ValueError):
        return Value(math.nan)


def hessian(function: Function, point: Vector, transport: Transport) -> Vector:
    """Returns the second derivatives (P, P) at a point, by central differences of the gradient."""
    found: Vector = np.empty((len(point), len(point)))
    for number, row in enumerate(found):
        aside = np.zeros_like(point)
        aside[number] = 1e-5 * (1 + abs(point[number]))
        above, below = (gradient(function, point + sign * aside, transport)[1] for sign in (1, -1))
        row[...] = (above - below) / (2 * aside[number])
    return (found + found.T) / 2


def newton(function: Function, transport: Transport) -> Callable[[int, Vector, Vector], Vector]:
    """Returns Newton's method as a step: to where the gradient would be 0 if the function were quadratic."""

    def step(_number: int, point: Vector, grads: Vector) -> Vector:
        return point - _to_go(hessian(function, point, transport), grads)

    return step


def lbfgs(function: Function, num_steps: int, tolerance: float, transport: Transport) -> Descent:
    """Returns the descent of SciPy's L-BFGS; arguments as of `descend`. Raises InputError if SciPy is missing."""
    try:
        from scipy.optimize import minimize
    except ImportError:
        raise InputError("--method lbfgs needs SciPy; type pip install 'ddpgd[lab]'") from None
    points = [np.array([param.data for param in function.params])]
    loss, grads = gradient(function, points[0], transport)
    _check_start(Progress(points[0], loss, float(np.linalg.norm(grads))))
    minimize(
        lambda point: gradient(function, point, transport), points[0], jac=True, method="L-BFGS-B",
        callback=lambda point: points.append(point.copy()),
        options={"maxiter": num_steps, "gtol": tolerance, "ftol": 0.0},
    )  # fmt: skip
    found = [(point, *gradient(function, point, transport)) for point in points]
    path = [Progress(point, loss, float(np.linalg.norm(grads))) for point, loss, grads in found]
    return Descent(path, verdict(function, path, transport))


def verdict(function: Function, path: Sequence[Progress], transport: Transport) -> str:
    """Returns a sentence on how a descent went."""
    first, last, steps = path[0], path[-1], len(path) - 1
    if _has_diverged(path):
        return f"diverged: after {plural(steps, 'step')} the loss is {last.loss:.3g}; a smaller --lr or another --from may help"
    curvature = hessian(function, last.point, transport)
    to_go = _to_go(curvature, gradient(function, last.point, transport)[1])
    reach = max(1.0, float(np.linalg.norm(last.point - to_go)))
    far = [
        number for number, one in enumerate(path) if np.linalg.norm(one.point - (last.point - to_go)) > SETTLED * reach
    ]
    if np.isfinite(to_go).all() and (not far or far[-1] < steps):
        return f"settled after {plural(max(far, default=-1) + 1, 'step')} {_kind(curvature)}"
    if last.loss > first.loss:
        return f"climbs: the loss went from {first.loss:.3g} to {last.loss:.3g}; type a smaller --lr"
    if np.linalg.norm(to_go) <= _NEAR * reach and _kind(curvature) == _SADDLE:
        return f"lingers {_SADDLE}; type more --steps"
    turns = [float((one.point - two.point) @ (two.point - three.point)) < 0 for one, two, three in _triples(path)]
    if len(turns) > 1 and np.mean(turns[len(turns) // 2 :]) > _OFTEN:
        return f"jumps from side to side: {_share(path)}; type a smaller --lr"
    return f"creeps: after {plural(steps, 'step')} {_share(path)}; type a larger --lr, or more --steps"


def _batch(number: int, batch: int, num_samples: int, seed: int) -> list[int]:
    """Returns the samples of a step."""
    per_pass = -(-num_samples // batch)
    epoch, within = divmod(number, per_pass)
    order: list[int] = permutation(seed, epoch, num_samples).tolist()
    return order[within * batch : (within + 1) * batch]


def _to_go(hessian: Vector, grads: Vector) -> Vector:
    """Returns Newton's step, whose negative leads to where a quadratic has no gradient; NaN where there is none."""
    if np.isfinite(hessian).all():
        found, *_ = np.linalg.lstsq(hessian, grads, rcond=None)
        left = float(np.linalg.norm(hessian @ found - grads))
        if left <= max(_TINY, _NEAR * float(np.linalg.norm(grads))):
            return np.asarray(found, np.float64)
    return np.full_like(grads, math.nan)


def _check_start(one: Progress) -> None:
    if not _is_finite(one):
        raise InputError("descend: the loss or its gradient is not finite where it starts; type another --from")


def _is_finite(one: Progress) -> bool:
    return math.isfinite(one.loss) and math.isfinite(one.norm)


def _has_diverged(path: Sequence[Progress]) -> bool:
    first, last = path[0], path[-1]
    return not _is_finite(last) or last.loss - first.loss > _DIVERGED * max(1.0, abs(first.loss))


def _kind(hessian: Vector) -> str:
    """Returns what kind of point has these second derivatives (P, P), by the signs of the curvatures."""
    curvatures = np.linalg.eigvalsh(hessian)
    flat = 1e-6 * max(1.0, np.abs(curvatures).max())
    if (curvatures > flat).all():
        return "in a minimum"
    if (curvatures < -flat).all():
        return "on a maximum"
    if (curvatures < -flat).any():
        return _SADDLE
    return "where it is flat"


def _share(path: Sequence[Progress]) -> str:
    return f"the gradient is still {100 * path[-1].norm / path[0].norm:.3g} % of the first"


def _triples(path: Sequence[Progress]) -> list[tuple[Progress, Progress, Progress]]:
    return list(zip(path, path[1:], path[2:], strict=False))
