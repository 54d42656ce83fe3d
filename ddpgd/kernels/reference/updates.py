"""The updates of the reference, block by block: a formula for each row of `optim.rules.RULES`. Contract: `Ops.update`."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ddpgd.kernels.ops import Array
from ddpgd.kernels.words import Control

BLOCK_ELEMENTS = 1 << 16
"""Elements of a vector that an update handles at once, 256 KiB in float32: less, and calls take longer than arithmetic;
more, and every pass goes through memory."""

MOST_KEPT = 8
"""Sets of vectors whose views are kept: a run has one, or two with an outer optimizer."""

Formula = Callable[..., None]
"""formula(block, words, *hyper): puts the change of params into block.change, and changes block.vectors."""

_FORMULAS: dict[str, Formula] = {}
"""By the rules' names."""


class Words(NamedTuple):
    """The words of an update: what `decide` left in control, and the weight decay."""

    lr: float
    scale: float
    number: float
    weight_decay: float


class Block:
    """A part of an update's vectors that stays in the cache: views, and two work arrays of its length.

    A formula puts the change of params into `change`; `gradient` is g, in `change` as well.
    """

    def __init__(self, part: slice, params: Array, grads: Array, vectors: Sequence[Array], work: Array) -> None:
        self.params = params[part]
        self.grads = grads[part]
        self.vectors = [vector[part] for vector in vectors]
        self.change, self.work = work[0, : len(self.params)], work[1, : len(self.params)]

    def gradient(self, words: Words) -> Array:
        """SCALE grads + weight_decay params; grads is left alone: writing what peers have just read costs more."""
        np.multiply(self.grads, words.scale, out=self.change)
        if words.weight_decay:
            np.multiply(self.params, words.weight_decay, out=self.work)
            np.add(self.change, self.work, out=self.change)
        return self.change


def _formula(formula: Formula) -> Formula:
    _FORMULAS[formula.__name__] = formula
    return formula


@_formula
def sgd(block: Block, words: Words) -> None:
    if words.weight_decay:
        np.multiply(block.gradient(words), words.lr, out=block.change)
    else:
        np.multiply(block.grads, words.lr * words.scale, out=block.change)


@_formula
def momentum(block: Block, words: Words, momentum: float) -> None:
    (velocity,) = block.vectors
    np.multiply(velocity, momentum, out=velocity)
    np.add(velocity, block.gradient(words), out=velocity)
    np.multiply(velocity, words.lr, out=block.change)


@_formula
def nesterov(block: Block, words: Words, momentum: float) -> None:
    (velocity,), gradient = block.vectors, block.gradient(words)
    np.multiply(velocity, momentum, out=velocity)
    np.add(velocity, gradient, out=velocity)
    np.multiply(velocity, momentum, out=block.work)
    np.add(gradient, block.work, out=block.change)
    np.multiply(block.change, words.lr, out=block.change)


@_formula
def adam(block: Block, words: Words, beta1: float, beta2: float, epsilon: float) -> None:
    (exp_avg, exp_avg_sq), gradient, work = block.vectors, block.gradient(words), block.work
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
    np.multiply(work, words.lr / (1.0 - beta1**words.number), out=block.change)


class Updates:
    """Updates of vectors block by block; the views of vectors that come back every step are cut once."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, ...], tuple[list[Array], list[Block]]] = {}

    def __call__(
        self,
        rule: str,
        params: Array,
        grads: Array,
        vectors: Sequence[Array],
        control: Array,
        weight_decay: float,
        hyper: Sequence[float],
    ) -> None:
        lr, scale, apply, number = control[: Control.UPDATE + 1].tolist()
        if not apply:
            return
        formula = _FORMULAS[rule]
        words = Words(lr, scale, number, weight_decay)
        for block in self._blocks_of(params, grads, vectors):
            formula(block, words, *hyper)
            np.subtract(block.params, block.change, out=block.params)

    def _blocks_of(self, params: Array, grads: Array, vectors: Sequence[Array]) -> list[Block]:
        arrays = [params, grads, *vectors]
        key = tuple(map(id, arrays))
        if key not in self._blocks:
            if len(self._blocks) == MOST_KEPT:
                self._blocks.clear()
            work = np.empty((2, min(BLOCK_ELEMENTS, len(params))), params.dtype)
            parts = [slice(start, start + BLOCK_ELEMENTS) for start in range(0, len(params), BLOCK_ELEMENTS)]
            # Holding the arrays keeps their ids their own.
            self._blocks[key] = arrays, [Block(part, params, grads, vectors, work) for part in parts]
        return self._blocks[key][1]
