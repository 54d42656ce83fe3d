"""The tail: the few float32 words that travel, uncompressed, with every exchange.

Everybody decides the same from the same words, so that a step has no collective but its exchange.
"""

from enum import IntEnum


class Tail(IntEnum):
    """Where each word lies. All are sums: over the samples of a micro-batch first, then over micro-batches and ranks."""

    LOSS_SUM = 0
    SAMPLES = 1
    CORRECT = 2
    NON_FINITE = 3
    STOP = 4
    SQUARED_NORM_SUM = 5


TAIL_WORDS = 8
"""Length of a tail in float32 words; the last two are spare."""
