"""Number of micro-batches that a GPU computes side by side; known without one."""

from ddpgd.kernels.words import TAIL_WORDS

JOINED_ROWS = 16384
JOINED_BYTES = 1 << 29
"""Micro-batches are joined up to so many rows, and gradients of so many bytes. Not yet measured."""


def batched_micro_batches(micro_batch: int, size: int) -> int:
    """As `Ops.batched_micro_batches`."""
    most = min(JOINED_ROWS // micro_batch, JOINED_BYTES // (4 * (size + TAIL_WORDS)))
    return 1 << (max(1, most).bit_length() - 1)
