"""The verdict on a descent: it settled and where, creeps, jumps, climbs, or diverged."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddpgd.comm.transport import Transport
from ddpgd.config.units import plural
from ddpgd.lab.derivatives import Vector, gradient, hessian, newton_step
from ddpgd.lab.functions import Function

SETTLED = 1e-3
"""A descent has settled where Newton's method would not move it by more than this share of the point's norm, or of 1."""
_NEAR = 0.05
_OFTEN = 0.5
_SADDLE = "on a saddle point: the loss still falls in some direction"
_DIVERGED = 1e6


class Progress(NamedTuple):
    """A point (P,) of a descent, the mean loss there, and the norm of its gradient."""

    point: Vector
    loss: float
    norm: float


class Remedy(NamedTuple):
    """Words for what to type against steps that are too long, or too short."""

    long: str
    short: str


OF_RATES = Remedy("a smaller --lr", "a larger --lr, or more --steps")
OF_METHODS = Remedy("another --from", "another --from, or more --steps")
"""Of methods that find their steps themselves."""


def verdict(function: Function, path: Sequence[Progress], transport: Transport, remedy: Remedy) -> str:
    """Returns a sentence on how a descent went, and what to type."""
    first, last, steps = path[0], path[-1], len(path) - 1
    if has_diverged(path):
        may_help = " or ".join(dict.fromkeys((remedy.long, "another --from")))
        return f"diverged: after {plural(steps, 'step')} the loss is {last.loss:.3g}; {may_help} may help"
    curvature = hessian(function, last.point, transport)
    to_go = newton_step(curvature, gradient(function, last.point, transport)[1])
    reach = max(1.0, float(np.linalg.norm(last.point - to_go)))
    far = [
        number for number, one in enumerate(path) if np.linalg.norm(one.point - (last.point - to_go)) > SETTLED * reach
    ]
    if np.isfinite(to_go).all() and (not far or far[-1] < steps):
        return f"settled after {plural(max(far, default=-1) + 1, 'step')} {_kind(curvature)}"
    if last.loss > first.loss:
        return f"climbs: the loss went from {first.loss:.3g} to {last.loss:.3g}; type {remedy.long}"
    if np.linalg.norm(to_go) <= _NEAR * reach and _kind(curvature) == _SADDLE:
        return f"lingers {_SADDLE}; type more --steps"
    turns = [float((one.point - two.point) @ (two.point - three.point)) < 0 for one, two, three in _triples(path)]
    if len(turns) > 1 and np.mean(turns[len(turns) // 2 :]) > _OFTEN:
        return f"jumps from side to side: {_share(path)}; type {remedy.long}"
    return f"creeps: after {plural(steps, 'step')} {_share(path)}; type {remedy.short}"


def is_finite(one: Progress) -> bool:
    return math.isfinite(one.loss) and math.isfinite(one.norm)


def has_diverged(path: Sequence[Progress]) -> bool:
    first, last = path[0], path[-1]
    return not is_finite(last) or last.loss - first.loss > _DIVERGED * max(1.0, abs(first.loss))


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
