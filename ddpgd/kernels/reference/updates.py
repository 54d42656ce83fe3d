"""The updates of the reference, block by block: a formula for each row of `optim.rules.RULES`. Contract: `Ops.update`."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.kept import Kept
from ddpgd.kernels.words import Control

PART = 1 << 17
"""Elements of each vector that are updated at once, 512 KiB in float32. With fewer, the calls take longer than the
arithmetic; with more, every pass over a vector reads it from memory."""

CLEARED_EVERY = 128
"""Updates from one `clear` to the next."""

NOTHING = 1e-30
"""The size below which an element of state is cleared. Such a one moves no param; and 0.9^128 of it is no subnormal number of
float32 yet, with which processors take tens of times as long."""

MOST_KEPT = 64
"""Sets of vectors whose views are kept: a run has one, or three with local steps; where a rule works on matrices, as many
for each span between them."""


def clear(vector: Array, work: Array) -> None:
    """Makes 0 of elements of state that are next to nothing.

    Where no gradient comes, as for pixels that are hardly ever set, state shrinks to subnormal numbers and stays there, since
    0.9 of the smallest is rounded up again. `work`, of the same shape, is undefined afterwards.
    """
    np.abs(vector, out=work)
    np.copyto(vector, 0.0, where=work < NOTHING)


class Words(NamedTuple):
    """The words of an update: those that `decide` left in control, and the weight decay. `clip_value` 0: none."""

    lr: float
    scale: float
    number: float
    weight_decay: float
    clip_value: float = 0.0

    @property
    def without_decay(self) -> "Words":
        return self._replace(weight_decay=0.0)


class Part:
    """The views of a part of an update's vectors, and two work arrays of its length, all of which fit into the cache."""

    def __init__(self, part: slice, params: Array, grads: Array, state: Sequence[Array], work: Array) -> None:
        self.params = params[part]
        self.grads = grads[part]
        self.state = [vector[part] for vector in state]
        self.work, self._gradient = work[0, : len(self.params)], work[1, : len(self.params)]

    def gradient(self, words: Words) -> Array:
        """Returns SCALE grads, clipped, + weight_decay params in a work array; `work` is undefined afterwards.

        Not in place: other ranks have just read grads, and writing what others have read is slow.
        """
        np.multiply(self.grads, words.scale, out=self._gradient)
        if words.clip_value:
            np.clip(self._gradient, -words.clip_value, words.clip_value, out=self._gradient)
        if words.weight_decay:
            np.multiply(self.params, words.weight_decay, out=self.work)
            np.add(self._gradient, self.work, out=self._gradient)
        return self._gradient

    def decayed(self, words: Words) -> Array:
        """Returns the change in `work` with lr weight_decay params added to it."""
        if words.weight_decay:
            np.multiply(self.params, words.lr * words.weight_decay, out=self._gradient)
            np.add(self.work, self._gradient, out=self.work)
        return self.work


Formula = Callable[..., Array]
"""formula(part, words, *hyper): changes the part's state and returns the change of its params, in a work array."""

FORMULAS: dict[str, Formula] = {}
"""The formulas by the rules' names."""


def _formula(formula: Formula) -> Formula:
    FORMULAS[formula.__name__] = formula
    return formula


@_formula
def sgd(part: Part, words: Words) -> Array:
    if words.weight_decay or words.clip_value:
        gradient = part.gradient(words)
        np.multiply(gradient, words.lr, out=gradient)
        return gradient
    np.multiply(part.grads, words.lr * words.scale, out=part.work)
    return part.work


@_formula
def momentum(part: Part, words: Words, momentum: float) -> Array:
    (velocity,), gradient = part.state, part.gradient(words)
    np.multiply(velocity, momentum, out=velocity)
    np.add(velocity, gradient, out=velocity)
    np.multiply(velocity, words.lr, out=gradient)
    return gradient


@_formula
def nesterov(part: Part, words: Words, momentum: float) -> Array:
    (velocity,), gradient, work = part.state, part.gradient(words), part.work
    np.multiply(velocity, momentum, out=velocity)
    np.add(velocity, gradient, out=velocity)
    np.multiply(velocity, momentum, out=work)
    np.add(gradient, work, out=work)
    np.multiply(work, words.lr, out=work)
    return work


@_formula
def adam(part: Part, words: Words, beta1: float, beta2: float, epsilon: float) -> Array:
    (exp_avg, exp_avg_sq), gradient, work = part.state, part.gradient(words), part.work
    np.multiply(gradient, 1.0 - beta1, out=work)
    np.multiply(exp_avg, beta1, out=exp_avg)
    np.add(exp_avg, work, out=exp_avg)
    np.multiply(gradient, gradient, out=gradient)
    np.multiply(gradient, 1.0 - beta2, out=gradient)
    np.multiply(exp_avg_sq, beta2, out=exp_avg_sq)
    np.add(exp_avg_sq, gradient, out=exp_avg_sq)
    np.sqrt(exp_avg_sq, out=work)
    np.multiply(work, 1.0 / math.sqrt(1.0 - beta2**words.number), out=work)
    np.add(work, epsilon, out=work)
    np.divide(exp_avg, work, out=work)
    np.multiply(work, words.lr / (1.0 - beta1**words.number), out=work)
    return work


@_formula
def adamw(part: Part, words: Words, beta1: float, beta2: float, epsilon: float) -> Array:
    adam(part, words.without_decay, beta1, beta2, epsilon)
    return part.decayed(words)


@_formula
def rmsprop(part: Part, words: Words, alpha: float, epsilon: float) -> Array:
    (square_avg,), gradient, work = part.state, part.gradient(words), part.work
    np.multiply(gradient, gradient, out=work)
    np.multiply(work, 1.0 - alpha, out=work)
    np.multiply(square_avg, alpha, out=square_avg)
    np.add(square_avg, work, out=square_avg)
    np.sqrt(square_avg, out=work)
    np.add(work, epsilon, out=work)
    np.divide(gradient, work, out=work)
    np.multiply(work, words.lr, out=work)
    return work


@_formula
def lion(part: Part, words: Words, beta1: float, beta2: float) -> Array:
    (exp_avg,), gradient, work = part.state, part.gradient(words.without_decay), part.work
    np.multiply(exp_avg, beta1 / (1.0 - beta1), out=work)
    np.add(work, gradient, out=work)
    np.sign(work, out=work)
    np.multiply(work, words.lr, out=work)
    np.multiply(exp_avg, beta2, out=exp_avg)
    np.multiply(gradient, 1.0 - beta2, out=gradient)
    np.add(exp_avg, gradient, out=exp_avg)
    return part.decayed(words)


class Updates:
    """Updates vectors part by part. The views of vectors that come back at every step are cut once."""

    def __init__(self) -> None:
        self._kept: Kept[list[Part]] = Kept(MOST_KEPT)

    def __call__(
        self,
        rule: str,
        params: Array,
        grads: Array,
        state: Sequence[Array],
        control: Array,
        weight_decay: float,
        hyper: Sequence[float],
    ) -> None:
        """Does what `Ops.update` does, apart from weights."""
        told = control.tolist()
        if not told[Control.APPLY]:
            return
        words = Words(
            told[Control.LR], told[Control.SCALE], told[Control.UPDATE], weight_decay, told[Control.CLIP_VALUE]
        )
        if momentum := told[Control.MOMENTUM]:
            hyper = momentum, *hyper[1:]
        formula = FORMULAS[rule]
        for part in self._parts([params, grads, *state]):
            np.subtract(part.params, formula(part, words, *hyper), out=part.params)
            for vector in part.state if words.number % CLEARED_EVERY == 0 else ():
                clear(vector, part.work)

    def _parts(self, vectors: list[Array]) -> list[Part]:
        def cut() -> list[Part]:
            (params, grads, *state), size = vectors, vectors[0].size
            work = np.empty((2, min(PART, size)), params.dtype)
            starts = range(0, size, PART)
            return [Part(slice(start, start + PART), params, grads, state, work) for start in starts]

        return self._kept.of(vectors, cut)
