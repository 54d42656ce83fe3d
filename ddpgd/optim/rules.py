"""Optimizers: update rules on the flat vectors of params and grads, with whatever flat vectors they must remember."""

from collections.abc import Callable
from typing import Protocol

from ddpgd.kernels.ops import Array, Ops


class Optimizer(Protocol):
    """An update rule. `state` names the vectors, float32 (n,), that a checkpoint must hold."""

    state: dict[str, Array]

    def update(self, params: Array, grads: Array, control: Array, weights: Array) -> None:
        """Applies the gradient SCALE * grads as `control` says; see Ops.sgd. grads is left as it is."""


class Sgd:
    """params -= lr g, g = gradient + weight_decay params. Robbins, Monro, "A stochastic approximation method", 1951."""

    def __init__(self, ops: Ops, weight_decay: float) -> None:
        self.state: dict[str, Array] = {}
        self._ops = ops
        self._weight_decay = weight_decay

    def update(self, params: Array, grads: Array, control: Array, weights: Array) -> None:
        self._ops.sgd(params, grads, control, self._weight_decay, weights)


class Momentum:
    """velocity = momentum velocity + g; params -= lr velocity. Polyak, "Some methods of speeding up", 1964."""

    def __init__(self, ops: Ops, size: int, weight_decay: float, momentum: float) -> None:
        self.state = {"velocity": ops.zeros((size,), ops.vector_dtype)}
        self._ops = ops
        self._weight_decay = weight_decay
        self._momentum = momentum

    def update(self, params: Array, grads: Array, control: Array, weights: Array) -> None:
        velocity = self.state["velocity"]
        self._ops.momentum(params, grads, velocity, control, self._weight_decay, self._momentum, weights)


class Nesterov:
    """velocity = momentum velocity + g; params -= lr (g + momentum velocity). See Ops.nesterov."""

    def __init__(self, ops: Ops, size: int, weight_decay: float, momentum: float) -> None:
        self.state = {"velocity": ops.zeros((size,), ops.vector_dtype)}
        self._ops = ops
        self._weight_decay = weight_decay
        self._momentum = momentum

    def update(self, params: Array, grads: Array, control: Array, weights: Array) -> None:
        velocity = self.state["velocity"]
        self._ops.nesterov(params, grads, velocity, control, self._weight_decay, self._momentum, weights)


class Adam:
    """Steps by running means of the gradient and its square. Kingma, Ba, "Adam", 2015; beta 0.9, 0.999, epsilon 1e-8."""

    def __init__(self, ops: Ops, size: int, weight_decay: float) -> None:
        self.state = {name: ops.zeros((size,), ops.vector_dtype) for name in ("first", "second")}
        self._ops = ops
        self._weight_decay = weight_decay

    def update(self, params: Array, grads: Array, control: Array, weights: Array) -> None:
        first, second = self.state["first"], self.state["second"]
        self._ops.adam(params, grads, first, second, control, self._weight_decay, 0.9, 0.999, 1e-8, weights)


def make(name: str, ops: Ops, size: int, weight_decay: float, momentum: float) -> Optimizer:
    """The optimizer that `--optimizer` calls `name`, for vectors of `size` elements."""
    rules: dict[str, Callable[[], Optimizer]] = {
        "sgd": lambda: Sgd(ops, weight_decay),
        "momentum": lambda: Momentum(ops, size, weight_decay, momentum),
        "nesterov": lambda: Nesterov(ops, size, weight_decay, momentum),
        "adam": lambda: Adam(ops, size, weight_decay),
    }
    return rules[name]()
