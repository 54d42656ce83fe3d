"""Norms of an update, block by block: of the mean gradient, of the params, and of their change."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import BLOCK
from ddpgd.training.state import TrainState


class BlockNorms(NamedTuple):
    """Squared norms of blocks of 1,024 elements, float32, on the host.

    Attributes:
        grads: Of the part of the summed gradient with which this rank updates params.
        params: Of this rank's params after the update.
        changes: Of what the update changed of them; 0 where it was not applied.
        grad_scale: Factor that makes the mean gradient of the summed one.
    """

    grads: NDArray[np.float32]
    params: NDArray[np.float32]
    changes: NDArray[np.float32]
    grad_scale: float


class UpdateNorms:
    """Measures one update at a time: `begin` before it, `end` after it. Nothing that it reads is changed."""

    def __init__(self, ops: Ops, state: TrainState, grads: Array) -> None:
        """`grads`: the gradient of the part of params that this rank updates; always the same array."""
        self._ops = ops
        self._params = state.params
        self._grads = grads
        self._before = ops.zeros(state.params.shape, state.params.dtype)
        self._sizes = [vector.size // BLOCK for vector in (grads, state.params, state.params)]
        self._norms = ops.zeros((sum(self._sizes),), np.float32)

    def begin(self) -> None:
        """Keeps the params as they are."""
        self._ops.copy(self._params, self._before)

    def end(self, grad_scale: float) -> BlockNorms:
        """Returns the norms of the update since `begin`. `grad_scale`: as in `BlockNorms`."""
        ops, first = self._ops, 0
        ops.wire.accumulate(self._params, -1.0, None, 0.0, self._before)
        for vector, size in zip((self._grads, self._params, self._before), self._sizes, strict=True):
            if size:
                ops.squared_norms(vector.reshape(-1, BLOCK), self._norms[first : first + size])
            first += size
        found = np.array(ops.to_host(self._norms))
        grads, params, changes = np.split(found, np.cumsum(self._sizes)[:-1])
        return BlockNorms(grads, params, changes, grad_scale)
