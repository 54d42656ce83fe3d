"""Optimizers whose rule works on matrices, and which therefore know where matrices lie in vectors."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.kept import Kept
from ddpgd.kernels.ops import Ops
from ddpgd.optim.rules import Optimizer, Rule, values

MOST_KEPT = 4
"""Sets of vectors whose views are kept: a run has one, or two with local steps."""


class Parts(NamedTuple):
    """The tensors in vectors: where hidden weight matrices begin, each with its shape (K, N), and the spans of the rest."""

    matrices: list[tuple[int, tuple[int, ...]]]
    rest: list[slice]


class _Views(NamedTuple):
    """A part of the vectors of an update."""

    params: Array
    grads: Array
    weights: Array
    state: list[Array]


class MatrixOptimizer(Optimizer):
    """A rule that updates the matrices in its vectors, with its companion for the rest of them."""

    def __init__(
        self, ops: Ops, rule: Rule, size: int, weight_decay: float, options: Mapping[str, float], parts: Parts
    ) -> None:
        super().__init__(ops, rule, size, weight_decay, options)
        (self._beta,) = values(rule, options)
        self._parts = parts
        self._kept: Kept[tuple[list[_Views], list[_Views]]] = Kept(MOST_KEPT)

    def update(self, params: Array, grads: Array, control: Array, weights: Array) -> None:
        matrices, rest = self._kept.of((params, grads, weights), lambda: self._cut(params, grads, weights))
        decay = self._weight_decay
        for part in rest:
            self._ops.update(self._name, part.params, part.grads, part.state, control, decay, self._hyper, part.weights)
        for part in matrices:
            self._ops.update_matrix(part.params, part.grads, part.state[0], control, decay, self._beta, part.weights)

    def _cut(self, params: Array, grads: Array, weights: Array) -> tuple[list[_Views], list[_Views]]:
        """Returns views of the vectors' matrices, and of the rest."""

        def views(part: slice, shape: tuple[int, ...]) -> _Views:
            own, *others = (vector[part].reshape(shape) for vector in (params, grads, *self.state.values()))
            copy = own if weights is params else weights[part].reshape(shape)
            return _Views(own, others[0], copy, others[1:])

        matrices = [views(slice(start, start + math.prod(shape)), shape) for start, shape in self._parts.matrices]
        return matrices, [views(part, (-1,)) for part in self._parts.rest]
