"""Ranks that together hold one copy of the params: what they must tell each other before they update them.

Each has the sum of its own part's gradient. The norm of the whole one, and the statistics, which only ranks with the loss
have, come from one all_reduce of a vector in which every word but counts has one contributor: exact in any order.
"""

from collections.abc import Sequence

import numpy as np

from ddpgd.comm.codec import Array
from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import BLOCK, TAIL_WORDS, Tail

_STATISTICS = slice(0, int(Tail.STOP))


class Replica:
    """One rank of a replica.

    Args:
        ops: The backend where the gradients are.
        transport: The ranks of the replica.
        spans: The places of this rank's part in the whole vector.
        size: Elements of the whole vector.
        has_loss: True on one of the ranks: its loss, samples and counts are those of the replica.
        groups: Further groups in which this rank sends during a step, for the count of its bytes.

    Attributes:
        has_loss: As given.
        block_norms: Squared norms of the whole sum's blocks, float32 (size / 1024,), after `combine`.
    """

    def __init__(
        self,
        ops: Ops,
        transport: Transport,
        spans: Sequence[slice],
        size: int,
        has_loss: bool,
        groups: Sequence[Transport] = (),
    ) -> None:
        num_blocks = size // BLOCK
        self._ops = ops
        self._transport = transport
        self._groups = groups
        self.has_loss = has_loss
        self._words = ops.zeros((num_blocks + TAIL_WORDS,), np.float32)
        self.block_norms = self._words[:num_blocks]
        self._tail = self._words[num_blocks:]
        self._windows = [self.block_norms[span.start // BLOCK : span.stop // BLOCK] for span in spans]

    @property
    def needs_host(self) -> bool:
        return self._transport.needs_host

    @property
    def bytes_sent(self) -> int:
        """By this rank, in groups of the replica."""
        return self._transport.bytes_sent + sum(group.bytes_sent for group in self._groups)

    def combine(self, grads: Array, part_norms: Array | None, tail: Array) -> None:
        """Fills `block_norms`, and turns the tail of this rank's group into that of the replica.

        Args:
            grads: The sum of this rank's part.
            part_norms: The squared norms of its blocks, where they are there already.
            tail: The sum of tails over ranks with the same part; float32 (TAIL_WORDS,).
        """
        ops = self._ops
        self._words.fill(0)
        first = 0
        for window in self._windows:
            blocks = slice(first, first + len(window))
            if part_norms is None:
                ops.squared_norms(grads[first * BLOCK : blocks.stop * BLOCK].reshape(-1, BLOCK), window)
            else:
                ops.copy(part_norms[blocks], window)
            first = blocks.stop
        if not self.has_loss:
            tail[_STATISTICS].fill(0)
        ops.copy(tail, self._tail)
        self._transport.all_reduce(self._words)
        ops.copy(self._tail, tail)
