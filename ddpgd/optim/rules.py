"""Optimizers: update rules as values, in one table that flags, help, checkpoints, documents and tests read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops

MOMENTA = ("momentum", "beta1")
"""Hyper-parameters that are momenta: of earlier gradients' sum, or of their mean."""


@dataclass(frozen=True)
class Rule:
    """An update rule: params -= change, where a formula makes the change from g = gradient + weight_decay params.

    Attributes:
        name: The value of `--optimizer`, and the name of the rule's formula in `kernels/reference/updates.py` and
            `kernels/cuda/rules.cuh`.
        formula: The published formula as Python statements that assign `change`. They read g, lr, the number t of the
            update (from 1), the vectors and the hyper-parameters. Tests hold the NumPy and CUDA formulas against it.
        source: The publication.
        lr: The default learning rate.
        state: Names of the vectors, float32 (n,), that the rule remembers and checkpoints hold. They start as zeros.
        hyper: The hyper-parameters, in the order in which the formulas take them: each a fixed value, or None for the
            value of the option of that name.
        pytorch: The equal optimizer of `torch.optim`, without params, lr and weight_decay, which tests compare with.
            Empty: PyTorch has none.
        behind_top_k: True if the rule can follow the sparse sums of `--wire topk`.
        decoupled: True if weight decay shrinks the params by itself: g is the gradient alone, and the formula also reads
            weight_decay and params.
        companion: Empty: the rule updates vectors element by element. Else `formula` is that of a hidden weight matrix
            (K, N), and reads orthogonalised(g), see `kernels.newton_schulz`, and max; the rule of this name, whose
            vectors are the same, updates all other params with the same learning rate and weight decay.
    """

    name: str
    formula: str
    source: str
    lr: float
    state: tuple[str, ...] = ()
    hyper: Mapping[str, float | None] = field(default_factory=dict)
    pytorch: str = ""
    behind_top_k: bool = True
    decoupled: bool = False
    companion: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """The options that are hyper-parameters of this rule."""
        return tuple(name for name, value in self.hyper.items() if value is None)

    @property
    def momentum(self) -> str:
        """The hyper-parameter that a schedule may cycle, which is the first; empty: the rule has no momentum."""
        first = next(iter(self.hyper), "")
        return first if first in MOMENTA else ""


_ROWS = (
    Rule(
        "sgd",
        "change = lr * g",
        'Robbins, Monro, "A stochastic approximation method", 1951',
        lr=0.1,
        pytorch="SGD()",
    ),
    Rule(
        "momentum",
        "velocity = momentum * velocity + g; change = lr * velocity",
        'Polyak, "Some methods of speeding up the convergence of iteration methods", 1964',
        lr=0.1,
        state=("velocity",),
        hyper={"momentum": None},
        pytorch="SGD(momentum=momentum)",
    ),
    Rule(
        "nesterov",
        "velocity = momentum * velocity + g; change = lr * (g + momentum * velocity)",
        'Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)", 1983, as rewritten '
        'by Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013',
        lr=0.1,
        state=("velocity",),
        hyper={"momentum": None},
        pytorch="SGD(momentum=momentum, nesterov=True)",
        behind_top_k=False,
    ),
    Rule(
        "adam",
        "exp_avg = beta1 * exp_avg + (1 - beta1) * g; exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g**2; "
        "change = lr * (exp_avg / (1 - beta1**t)) / (sqrt(exp_avg_sq / (1 - beta2**t)) + epsilon)",
        'Kingma, Ba, "Adam: a method for stochastic optimization", 2015',
        lr=0.001,
        state=("exp_avg", "exp_avg_sq"),
        hyper={"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        pytorch="Adam(betas=(beta1, beta2), eps=epsilon)",
    ),
    Rule(
        "adamw",
        "exp_avg = beta1 * exp_avg + (1 - beta1) * g; exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g**2; "
        "change = lr * (exp_avg / (1 - beta1**t)) / (sqrt(exp_avg_sq / (1 - beta2**t)) + epsilon) + lr * weight_decay * params",
        'Loshchilov, Hutter, "Decoupled weight decay regularization", 2019',
        lr=0.001,
        state=("exp_avg", "exp_avg_sq"),
        hyper={"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        pytorch="AdamW(betas=(beta1, beta2), eps=epsilon)",
        decoupled=True,
    ),
    Rule(
        "muon",
        "exp_avg = beta * exp_avg + (1 - beta) * g; "
        "change = lr * 0.2 * sqrt(max(K, N)) * orthogonalised(beta * exp_avg + (1 - beta) * g) + lr * weight_decay * params",
        'Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; with the factor 0.2 sqrt(max(K, N)) '
        'of Liu et al., "Muon is scalable for LLM training", 2025',
        lr=0.002,
        state=("exp_avg", "exp_avg_sq"),
        hyper={"beta": 0.95},
        behind_top_k=False,
        decoupled=True,
        companion="adamw",
    ),
    Rule(
        "rmsprop",
        "square_avg = alpha * square_avg + (1 - alpha) * g**2; change = lr * g / (sqrt(square_avg) + epsilon)",
        'Tieleman, Hinton, "Lecture 6.5: RMSProp", Neural Networks for Machine Learning, 2012',
        lr=0.001,
        state=("square_avg",),
        hyper={"alpha": 0.99, "epsilon": 1e-8},
        pytorch="RMSprop(alpha=alpha, eps=epsilon)",
    ),
    Rule(
        "lion",
        "change = lr * sign(beta1 * exp_avg + (1 - beta1) * g) + lr * weight_decay * params; "
        "exp_avg = beta2 * exp_avg + (1 - beta2) * g",
        'Chen et al., "Symbolic discovery of optimization algorithms", 2023',
        lr=0.0001,
        state=("exp_avg",),
        hyper={"beta1": 0.9, "beta2": 0.99},
        decoupled=True,
    ),
)

RULES = {rule.name: rule for rule in _ROWS}
"""The update rules, by name."""

ELEMENTWISE = {name: rule for name, rule in RULES.items() if not rule.companion}
"""Those that update vectors element by element, whatever lies in them."""

FORMER_NAMES = {"first": "exp_avg", "second": "exp_avg_sq"}
"""Names that vectors had in checkpoints of earlier versions."""


class Optimizer:
    """A rule with its vectors, in which no matrices are known: `companion` stands in for a rule of matrices.

    Attributes:
        state: The vectors by name, float32 (size,).
    """

    def __init__(self, ops: Ops, rule: Rule, size: int, weight_decay: float, options: Mapping[str, float]) -> None:
        """Creates the vectors as zeros. `options` holds the values of `rule.options`; others are ignored."""
        elementwise = RULES[rule.companion or rule.name]
        self.state = {name: ops.zeros((size,), ops.vector_dtype) for name in rule.state}
        self._ops = ops
        self._name = elementwise.name
        self._weight_decay = weight_decay
        self._hyper = values(elementwise, options)

    def update(self, params: Array, grads: Array, control: Array, weights: Array) -> None:
        """Applies the gradient SCALE * grads as `control` says; see `Ops.update`. grads stays as it is."""
        vectors = list(self.state.values())
        self._ops.update(self._name, params, grads, vectors, control, self._weight_decay, self._hyper, weights)


def values(rule: Rule, options: Mapping[str, float]) -> list[float]:
    """Returns the rule's hyper-parameters, some of which are `options`, in the order of its row."""
    return [options[name] if value is None else value for name, value in rule.hyper.items()]


def make(name: str, ops: Ops, size: int, weight_decay: float, **options: float) -> Optimizer:
    """Returns the optimizer that `--optimizer` calls `name`, for vectors of `size` elements; see `Optimizer`."""
    return Optimizer(ops, RULES[name], size, weight_decay, options)
