"""The decision of the reference about a summed gradient: its norm, whether it is applied, and how. Contracts: `ops.Ops`."""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.kernels.words import BLOCK, TAIL_WORDS, Control, Cursor, History, Policy, Tail


def squared_norm(scratch: Scratch, x: Array) -> float:
    blocks = x.reshape(-1, BLOCK)
    tree = scratch.keep(_Tree, blocks.shape[0], x.dtype)
    np.vecdot(blocks, blocks, out=tree.leaves)
    return tree.root()


def squared_norm_of_blocks(scratch: Scratch, block_norms: Array) -> float:
    tree = scratch.keep(_Tree, block_norms.shape[0], block_norms.dtype)
    np.copyto(tree.leaves, block_norms)
    return tree.root()


def decide(
    squared: float,
    tail: Array,
    rates: Array,
    cursor: Array,
    control: Array,
    history: Array,
    policy: Policy,
) -> None:
    words, now, (first, step, record, _) = tail.tolist(), control.tolist(), cursor.tolist()
    loss_scale, halted = now[Control.LOSS_SCALE], bool(now[Control.HALTED])
    idle = words[Tail.SAMPLES] == 0
    scale = 0.0 if idle else 1.0 / (words[Tail.SAMPLES] * loss_scale)
    norm = math.sqrt(squared) * scale
    finite, finite_loss = math.isfinite(norm), words[Tail.NON_FINITE] == 0
    applied = finite_loss and finite and not halted and not idle
    refused = finite_loss and not finite and not halted and not idle
    overflowed = refused and loss_scale > 1 and policy.growth_interval > 0
    lr, now[Control.MOMENTUM] = rates[step].tolist()
    lr *= now[Control.LR_FACTOR]
    now[Control.LR] = lr
    now[Control.SCALE] = scale * (policy.clip_norm / norm) if 0.0 < policy.clip_norm < norm else scale
    now[Control.CLIP_VALUE] = policy.clip_value
    now[Control.APPLY] = applied
    now[Control.UPDATE] += applied
    now[Control.HALTED] = halted if idle else not (applied or overflowed)
    if policy.growth_interval:
        _adapt_loss_scale(now, applied, overflowed, policy)
    control[:] = now
    row = words + [0.0] * (History.LOSS_SCALE + 1 - TAIL_WORDS)
    row[History.LR] = lr
    row[History.GRAD_NORM] = norm
    row[History.APPLIED] = applied
    row[History.OVERFLOWED] = overflowed
    row[History.LOSS_SCALE] = loss_scale
    history[record % len(history), : len(row)] = row
    cursor[: Cursor.RECORD + 1] = first + policy.global_batch, step + 1, record + 1


class _Tree:
    """A complete binary tree over blocks, whose `leaves` zeros pad to a power of two; its views are made once."""

    def __init__(self, num_blocks: int, dtype: DTypeLike) -> None:
        levels = [np.zeros(1 << level, dtype) for level in range((num_blocks - 1).bit_length(), -1, -1)]
        self.leaves = levels[0][:num_blocks]
        self._sums = [(nodes[::2], nodes[1::2], parents) for nodes, parents in pairwise(levels)]
        self._root = levels[-1]

    def root(self) -> float:
        """Returns the sum of the leaves."""
        for left, right, parents in self._sums:
            np.add(left, right, parents)
        return float(self._root[0])


def _adapt_loss_scale(control: list[float], applied: bool, overflowed: bool, policy: Policy) -> None:
    if overflowed:
        control[Control.LOSS_SCALE] /= 2
        control[Control.GOOD_STEPS] = 0
    elif applied:
        control[Control.GOOD_STEPS] += 1
        if control[Control.GOOD_STEPS] >= policy.growth_interval:
            control[Control.LOSS_SCALE] = min(2 * control[Control.LOSS_SCALE], policy.largest_loss_scale)
            control[Control.GOOD_STEPS] = 0
