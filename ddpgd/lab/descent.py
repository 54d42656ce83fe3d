"""Gradient descent on a function of a few params: its steps, and those of methods to compare it with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ddpgd.comm.transport import Transport
from ddpgd.errors import InputError
from ddpgd.kernels.philox import permutation
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, Control
from ddpgd.lab.derivatives import Vector, gradient, hessian, newton_step
from ddpgd.lab.functions import Function
from ddpgd.lab.verdict import OF_METHODS, OF_RATES, Progress, has_diverged, is_finite, verdict
from ddpgd.optim import rules
from ddpgd.optim.schedules import Plateau, Schedule

METHODS = ("newton", "lbfgs")
"""Methods for comparison, which choose their steps by the second derivatives."""

MISTAKES = {
    "forgotten-zero-grad": "gradients of all steps add up: descent swings like with momentum 1, and never settles",
    "plus": "the gradient is added instead of subtracted: the loss climbs",
    "equal-init": "neurons of a layer begin alike, get the same gradient, and stay alike: four of them can do no more than one",
}
"""Classic mistakes, and what one sees."""


Step = Callable[[int, Progress, Vector], Vector]
"""(steps so far, the point with its loss, the gradient that a step takes) -> the next point."""


@dataclass(frozen=True)
class Descent:
    """The path of a descent, its start first, and what to say of it."""

    path: list[Progress]
    verdict: str


class Method:
    """A way to get from a point to the next: an update rule of `optim.rules.RULES`, in float64.

    Args:
        rule: Its name.
        schedule: step (from 0) -> rates.
        plateau: The rule by which the loss of every step lowers them; None: it does not.
        weight_decay, clip_norm, clip_value: As of `ddpgd train`.
        mistake: A key of MISTAKES; empty: none.
        options: Hyper-parameters by name.
    """

    def __init__(
        self, rule: str, schedule: Schedule, plateau: Plateau | None, size: int, weight_decay: float, clip_norm: float,
        clip_value: float, mistake: str, **options: float,
    ) -> None:  # fmt: skip
        self._optimizer = rules.make(rule, Reference(np.float64), size, weight_decay, **options)
        self._schedule = schedule
        self._plateau = plateau
        self._lr_factor, self._waited = 1.0, 0
        self._best: float | None = None
        self._clip_norm = clip_norm
        self._clip_value = clip_value
        self._mistake = mistake
        self._all_grads = np.zeros(size)

    def __call__(self, number: int, now: Progress, grads: Vector) -> Vector:
        """Returns the point after that of `now`, from where a step takes the gradient `grads` (P,); `number`: steps so far."""
        self._all_grads += grads
        lr, momentum = self._schedule(number)
        control = np.zeros(CONTROL_WORDS)
        control[[Control.APPLY, Control.UPDATE, Control.CLIP_VALUE]] = 1, number + 1, self._clip_value
        control[[Control.LR, Control.MOMENTUM]] = lr * self._factor(now.loss), momentum
        after = now.point.copy()
        taken = self._all_grads if self._mistake == "forgotten-zero-grad" else grads
        control[Control.SCALE] = self._scale(float(np.linalg.norm(taken)))
        self._optimizer.update(after, taken.copy(), control, after)
        return after

    def _factor(self, loss: float) -> float:
        """Returns the factor on the learning rate after one more loss."""
        if self._plateau:
            self._best, self._waited, is_lowered = self._plateau.see(loss, self._best, self._waited)
            self._lr_factor *= self._plateau.factor if is_lowered else 1.0
        return self._lr_factor

    def _scale(self, norm: float) -> float:
        """Returns the factor on a gradient of this norm."""
        clipped = self._clip_norm / norm if 0 < self._clip_norm < norm else 1.0
        return -clipped if self._mistake == "plus" else clipped


def descend(
    function: Function, step: Step, num_steps: int, tolerance: float, batch: int, seed: int,
    transport: Transport,
) -> Descent:  # fmt: skip
    """Returns a descent of at most `num_steps`; every rank calls it, and gets the same bits.

    Args:
        function: What to descend, from where its params are.
        step: The method.
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
        if path[-1].norm <= tolerance or has_diverged(path):
            break
        if number < num_steps:
            samples = _batch(number, batch, function.num_samples, seed)
            if len(samples) < function.num_samples:
                _, grads = gradient(function, point, transport, samples)
            point = step(number, path[-1], grads)
    remedy = OF_RATES if isinstance(step, Method) else OF_METHODS
    return Descent(path, verdict(function, path, transport, remedy))


def newton(function: Function, transport: Transport) -> Step:
    """Returns Newton's method as a step: to where the gradient would be 0 if the function were quadratic."""

    def step(_number: int, now: Progress, grads: Vector) -> Vector:
        return now.point - newton_step(hessian(function, now.point, transport), grads)

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
    return Descent(path, verdict(function, path, transport, OF_METHODS))


def _batch(number: int, batch: int, num_samples: int, seed: int) -> list[int]:
    """Returns the samples of a step."""
    per_pass = -(-num_samples // batch)
    epoch, within = divmod(number, per_pass)
    order: list[int] = permutation(seed, epoch, num_samples).tolist()
    return order[within * batch : (within + 1) * batch]


def _check_start(one: Progress) -> None:
    if not is_finite(one):
        raise InputError("descend: the loss or its gradient is not finite where it starts; type another --from")
