"""What the reference does with a summed gradient: its norm, the decision, the update. Contracts: `ops.Ops`."""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.control import Control, Cursor, History, Policy
from ddpgd.kernels.ops import Array
from ddpgd.kernels.scratch import Scratch
from ddpgd.params import BLOCK
from ddpgd.tail import TAIL_WORDS, Tail


def squared_norm(scratch: Scratch, x: Array) -> float:
    blocks = x.reshape(-1, BLOCK)
    levels = scratch.keep(_block_tree, blocks.shape[0], x.dtype)
    np.vecdot(blocks, blocks, out=levels[0][: blocks.shape[0]])
    for nodes, parents in pairwise(levels):
        np.add(nodes[::2], nodes[1::2], out=parents)
    return float(levels[-1][0])


def decide(
    scratch: Scratch,
    grads: Array,
    tail: Array,
    lrs: Array,
    cursor: Array,
    control: Array,
    history: Array,
    policy: Policy,
) -> None:
    words, state, place = tail.tolist(), control.tolist(), cursor.tolist()
    loss_scale = state[Control.LOSS_SCALE]
    scale = 1.0 / (words[Tail.SAMPLES] * loss_scale)
    norm = math.sqrt(squared_norm(scratch, grads)) * scale
    finite_loss = words[Tail.NON_FINITE] == 0
    applied = finite_loss and math.isfinite(norm) and not state[Control.HALTED]
    may_shrink = bool(policy.growth_interval) and loss_scale > 1 and not state[Control.HALTED]
    overflowed = finite_loss and not math.isfinite(norm) and may_shrink
    if applied and 0.0 < policy.clip_norm < norm:
        scale *= policy.clip_norm / norm
    state[Control.LR] = float(lrs[place[Cursor.STEP]])
    state[Control.SCALE] = scale
    state[Control.APPLY] = applied
    state[Control.UPDATE] += applied
    state[Control.HALTED] = state[Control.HALTED] or not (applied or overflowed)
    _adapt_loss_scale(state, applied, overflowed, policy)
    control[:] = state
    row = history[place[Cursor.RECORD] % len(history)]
    row[:TAIL_WORDS] = tail
    row[History.LR : History.LOSS_SCALE + 1] = state[Control.LR], norm, applied, overflowed, loss_scale
    cursor[: Cursor.RECORD + 1] = (
        place[Cursor.FIRST] + policy.global_batch,
        place[Cursor.STEP] + 1,
        place[Cursor.RECORD] + 1,
    )


def sgd(scratch: Scratch, params: Array, grads: Array, control: Array, weight_decay: float) -> None:
    lr, scale, apply = control[: Control.APPLY + 1].tolist()
    if not apply:
        return
    if weight_decay:
        change = _gradient(scratch, params, grads, scale, weight_decay)
        np.multiply(change, lr, out=change)
    else:
        change = scratch("gradient", params.shape, params.dtype)
        np.multiply(grads, lr * scale, out=change)
    np.subtract(params, change, out=params)


def momentum(
    scratch: Scratch,
    params: Array,
    grads: Array,
    velocity: Array,
    control: Array,
    weight_decay: float,
    momentum: float,
) -> None:
    lr, scale, apply = control[: Control.APPLY + 1].tolist()
    if not apply:
        return
    change = _gradient(scratch, params, grads, scale, weight_decay)
    np.multiply(velocity, momentum, out=velocity)
    np.add(velocity, change, out=velocity)
    np.multiply(velocity, lr, out=change)
    np.subtract(params, change, out=params)


def adam(
    scratch: Scratch,
    params: Array,
    grads: Array,
    first: Array,
    second: Array,
    control: Array,
    weight_decay: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    lr, scale, apply, update = control[: Control.UPDATE + 1].tolist()
    if not apply:
        return
    gradient = _gradient(scratch, params, grads, scale, weight_decay)
    work = scratch("work", params.shape, params.dtype)
    np.multiply(gradient, 1.0 - beta1, out=work)
    np.multiply(first, beta1, out=first)
    np.add(first, work, out=first)
    np.multiply(gradient, gradient, out=gradient)
    np.multiply(gradient, 1.0 - beta2, out=gradient)
    np.multiply(second, beta2, out=second)
    np.add(second, gradient, out=second)
    np.sqrt(second, out=work)
    np.multiply(work, 1.0 / math.sqrt(1.0 - beta2**update), out=work)
    np.add(work, epsilon, out=work)
    np.divide(first, work, out=work)
    np.multiply(work, lr / (1.0 - beta1**update), out=work)
    np.subtract(params, work, out=params)


def _gradient(scratch: Scratch, params: Array, grads: Array, scale: float, weight_decay: float) -> Array:
    """scale grads + weight_decay params, in scratch: writing into grads, which peers have just read, costs more."""
    gradient = scratch("gradient", params.shape, params.dtype)
    np.multiply(grads, scale, out=gradient)
    if weight_decay:
        work = scratch("work", params.shape, params.dtype)
        np.multiply(params, weight_decay, out=work)
        np.add(gradient, work, out=gradient)
    return gradient


def _block_tree(num_blocks: int, dtype: DTypeLike) -> list[Array]:
    """The nodes of a complete binary tree over blocks, level by level; zeros pad the first to a power of two."""
    depth = (num_blocks - 1).bit_length()
    return [np.zeros(1 << level, dtype) for level in range(depth, -1, -1)]


def _adapt_loss_scale(state: list[float], applied: bool, overflowed: bool, policy: Policy) -> None:
    if overflowed:
        state[Control.LOSS_SCALE] /= 2
        state[Control.GOOD_STEPS] = 0
    elif applied and policy.growth_interval:
        state[Control.GOOD_STEPS] += 1
        if state[Control.GOOD_STEPS] >= policy.growth_interval:
            state[Control.LOSS_SCALE] = min(2 * state[Control.LOSS_SCALE], policy.largest_loss_scale)
            state[Control.GOOD_STEPS] = 0
