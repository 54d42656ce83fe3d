"""Optimizers: update rules as values, in one table that flags, documents, checkpoints and tests read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ddpgd.kernels.ops import Array, Ops


@dataclass(frozen=True)
class Rule:
    """An update rule: params -= change, where its formula makes the change from g = gradient + weight_decay params.

    Attributes:
        name: The name of `--optimizer`, and of the rule's formula in `kernels/reference/updates.py` and `optimizer.cu`.
        formula: The published formula, in Python, of g, lr, the number t of the update (from 1), the vectors and the
            hyper-parameters: what tests hold the NumPy and CUDA forms against.
        source: The paper.
        lr: The default learning rate.
        vectors: Names of the vectors, float32 (n,), that it remembers and a checkpoint holds; they start as zeros.
        hyper: Its hyper-parameters in the formula's order: a value, or None for the configuration's option of that name.
    """

    name: str
    formula: str
    source: str
    lr: float = 0.1
    vectors: tuple[str, ...] = ()
    hyper: Mapping[str, float | None] = field(default_factory=dict)


RULES = {
    rule.name: rule
    for rule in (
        Rule("sgd", "change = lr * g", 'Robbins, Monro, "A stochastic approximation method", 1951'),
        Rule(
            "momentum",
            "velocity = momentum * velocity + g; change = lr * velocity",
            'Polyak, "Some methods of speeding up the convergence of iteration methods", 1964',
            vectors=("velocity",),
            hyper={"momentum": None},
        ),
        Rule(
            "nesterov",
            "velocity = momentum * velocity + g; change = lr * (g + momentum * velocity)",
            'Nesterov, 1983, as rewritten by Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and '
            'momentum in deep learning", 2013',
            vectors=("velocity",),
            hyper={"momentum": None},
        ),
        Rule(
            "adam",
            "exp_avg = beta1 * exp_avg + (1 - beta1) * g; exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g**2; "
            "change = lr * (exp_avg / (1 - beta1**t)) / (sqrt(exp_avg_sq / (1 - beta2**t)) + epsilon)",
            'Kingma, Ba, "Adam: a method for stochastic optimization", 2015',
            lr=0.001,
            vectors=("exp_avg", "exp_avg_sq"),
            hyper={"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        ),
    )
}


class Optimizer:
    """A rule with its vectors: `state` names them, float32 (size,)."""

    def __init__(self, ops: Ops, rule: Rule, size: int, weight_decay: float, options: Mapping[str, float]) -> None:
        """`options`: values of the rule's hyper-parameters that come from the configuration; others are ignored."""
        self.state = {name: ops.zeros((size,), ops.vector_dtype) for name in rule.vectors}
        self._ops = ops
        self._name = rule.name
        self._weight_decay = weight_decay
        self._hyper = [options[name] if value is None else value for name, value in rule.hyper.items()]

    def update(self, params: Array, grads: Array, control: Array, weights: Array) -> None:
        """Applies the gradient SCALE * grads as `control` says; see `Ops.update`. grads is left as it is."""
        vectors = list(self.state.values())
        self._ops.update(self._name, params, grads, vectors, control, self._weight_decay, self._hyper, weights)


def make(name: str, ops: Ops, size: int, weight_decay: float, **options: float) -> Optimizer:
    """The optimizer that `--optimizer` calls `name`, for vectors of `size` elements; see `Optimizer`."""
    return Optimizer(ops, RULES[name], size, weight_decay, options)
