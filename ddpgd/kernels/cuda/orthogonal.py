"""The update of a weight matrix by its orthogonalised gradient on the device. Contract: `Ops.update_matrix`."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ddpgd.kernels.cuda.dense import Dense
from ddpgd.kernels.cuda.launcher import THREADS, Launcher, by_fours, check, count_of
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.newton_schulz import COEFFICIENTS, EPSILON, ITERATIONS, factor
from ddpgd.kernels.words import BLOCK

FILE = "orthogonal.cu"


class _Scratch(NamedTuple):
    """Arrays for matrices of one shape (K, N), S the smaller of the two.

    Attributes:
        padded: Whole blocks, the first elements of which are x.
        x, other: (K, N).
        gram, polynomial: (S, S).
        zeros: A bias that adds nothing, (max(K, N),).
        unused: The sum of columns that a product makes beside, (1, S).
        squared_norm: (1,).
    """

    padded: Array
    x: Array
    other: Array
    gram: Array
    polynomial: Array
    zeros: Array
    unused: Array
    squared_norm: Array


class Orthogonal:
    """Updates of matrices on one device, with products in float32 whatever the precision of layers is."""

    def __init__(self, launch: Launcher, squared_norms: Callable[[Array, Array], None]) -> None:
        """`squared_norms`: the op of that name."""
        self._launch = launch
        self._squared_norms = squared_norms
        self._made: dict[tuple[int, ...], _Scratch] = {}

    @cached_property
    def _dense(self) -> Dense:
        return Dense(self._launch, "float32")

    def update(
        self,
        params: Array,
        grads: Array,
        exp_avg: Array,
        control: Array,
        weight_decay: float,
        beta: float,
        weights: Array,
    ) -> None:
        """Does what `Ops.update_matrix` does."""
        for array in (params, grads, exp_avg):
            check(array, np.float32)
        scratch, where, size = self._scratch(params.shape), by_fours(params), np.int64(params.size)
        arguments = grads, exp_avg, scratch.x, control, np.float64(beta)
        self._launch(FILE, "matrix_direction", *where, *arguments, size)
        self._squared_norms(scratch.padded, scratch.squared_norm)
        self._launch(FILE, "matrix_normalise", *where, scratch.x, scratch.squared_norm, np.float32(EPSILON), size)
        x = self._orthogonalised(scratch)
        factors = np.float64(factor(params.shape)), np.float64(weight_decay)
        copy = None if weights is params else weights
        self._launch(FILE, "matrix_apply", *where, params, x, copy, control, *factors, size)

    def _orthogonalised(self, scratch: _Scratch) -> Array:
        """Returns the result of the iterations from x; x and other are overwritten."""
        (num_rows, num_columns), x, other = scratch.x.shape, scratch.x, scratch.other
        gram, polynomial, side = scratch.gram, scratch.polynomial, len(scratch.gram)
        factors, forward = map(np.float32, COEFFICIENTS), self._dense.forward
        arguments = gram, polynomial, polynomial, *factors, np.int32(side)
        grid = (count_of(side * side, THREADS),)
        for _ in range(ITERATIONS):
            if num_rows <= num_columns:
                self._dense.backward_input(x, x, polynomial, "identity", side, gram)
            else:
                self._dense.backward_params(x, x, num_rows, gram.reshape(1, side, side), scratch.unused)
            forward(gram, gram, scratch.zeros[:side], "identity", side, polynomial)
            self._launch(FILE, "matrix_polynomial", grid, (THREADS,), *arguments)
            factors_of_x = (polynomial, x) if num_rows <= num_columns else (x, polynomial)
            forward(*factors_of_x, scratch.zeros[:num_columns], "identity", num_rows, other)
            x, other = other, x
        return x

    def _scratch(self, shape: tuple[int, ...]) -> _Scratch:
        if shape not in self._made:
            side, size, zeros = min(shape), int(np.prod(shape)), self._launch.zeros
            padded = zeros((1, count_of(size, BLOCK) * BLOCK), np.float32)
            x = padded[0, :size].reshape(shape)
            sizes = shape, (side, side), (side, side), (max(shape),), (1, side), (1,)
            self._made[shape] = _Scratch(padded, x, *(zeros(own, np.float32) for own in sizes))
        return self._made[shape]
