"""Data parallel over scalars: each rank differentiates its samples, and all add them up in the order of the canonical sum."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm import tree
from ddpgd.comm.transport import Transport
from ddpgd.lab.scalar import Value

Sums = NDArray[np.float64]


def gradient(
    transport: Transport, num_samples: int, loss: Callable[[int], Value], params: Sequence[Value]
) -> tuple[float, Sums]:
    """Returns the mean of `loss(sample)` over all samples, and its gradient (P,): the same bits on any number of ranks.

    Samples are the leaves of a binary tree. A rank adds up the subtrees that it holds alone; what is left of each is sent to
    all ranks, which make the last additions alike. `grad` of the params is as before.
    """
    own = tree.ranges(num_samples, transport.world_size)[transport.rank]
    parts = tree.Fold[Sums](num_samples, _add)
    for sample in own:
        parts.push(tree.Node(0, sample), _of_sample(loss(sample), params))
    whole = tree.Fold[Sums](num_samples, _add)
    for roots in transport.all_gather_objects(parts.roots):
        for node, sums in roots:
            whole.push(node, sums.copy())
    ((_, total),) = whole.roots
    return float(total[0]) / num_samples, total[1:] / num_samples


def _add(into: Sums, sums: Sums) -> None:
    into += sums


def _of_sample(loss: Value, params: Sequence[Value]) -> Sums:
    """Returns a loss and its gradient, (1 + P,)."""
    before = [param.grad for param in params]
    for param in params:
        param.grad = 0.0
    loss.backward()
    sums = np.array([loss.data, *(param.grad for param in params)])
    for param, old in zip(params, before, strict=True):
        param.grad = old
    return sums
