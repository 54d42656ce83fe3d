"""The update of a weight matrix by its orthogonalised gradient, in NumPy. Contract: `Ops.update_matrix`."""

import math

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.newton_schulz import COEFFICIENTS, EPSILON, ITERATIONS, factor
from ddpgd.kernels.reference.decision import squared_norm
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.kernels.reference.updates import CLEARED_EVERY, clear
from ddpgd.kernels.words import BLOCK, Control


def update_matrix(
    scratch: Scratch, params: Array, grads: Array, exp_avg: Array, control: Array, weight_decay: float, beta: float
) -> None:
    lr, scale, apply = control[: Control.APPLY + 1].tolist()
    if not apply:
        return
    padded = scratch.keep(_padded, params.size, params.dtype)
    direction = padded[: params.size].reshape(params.shape)
    work = scratch("work of a matrix", params.shape, params.dtype)
    np.multiply(grads, (1.0 - beta) * scale, out=work)
    np.multiply(exp_avg, beta, out=exp_avg)
    np.add(exp_avg, work, out=exp_avg)
    np.multiply(exp_avg, beta, out=direction)
    np.add(direction, work, out=direction)
    if control[Control.UPDATE] % CLEARED_EVERY == 0:
        clear(exp_avg, work)
    np.divide(direction, math.sqrt(squared_norm(scratch, padded)) + EPSILON, out=direction)
    change, spare = _orthogonalised(scratch, direction, work)
    np.multiply(change, lr * factor(params.shape), out=change)
    if weight_decay:
        np.multiply(params, lr * weight_decay, out=spare)
        np.add(change, spare, out=change)
    np.subtract(params, change, out=params)


def _orthogonalised(scratch: Scratch, x: Array, other: Array) -> tuple[Array, Array]:
    """Returns the result of the iterations from `x` (K, N), of norm 1, and a spare array: x and `other`, or these."""
    a, b, c = COEFFICIENTS
    is_wide, side = x.shape[0] <= x.shape[1], min(x.shape)
    gram, polynomial = (scratch(purpose, (side, side), x.dtype) for purpose in ("gram", "polynomial"))
    for _ in range(ITERATIONS):
        np.matmul(*((x, x.T) if is_wide else (x.T, x)), out=gram)
        np.matmul(gram, gram, out=polynomial)
        np.multiply(polynomial, c, out=polynomial)
        np.multiply(gram, b, out=gram)
        np.add(polynomial, gram, out=polynomial)
        polynomial.reshape(-1)[:: side + 1] += a
        np.matmul(*((polynomial, x) if is_wide else (x, polynomial)), out=other)
        x, other = other, x
    return x, other


def _padded(size: int, dtype: DTypeLike) -> Array:
    """Returns room for so many elements in whole blocks, of which the others stay zero."""
    return np.zeros(-(-size // BLOCK) * BLOCK, dtype)
