"""The one source of randomness: raw Philox 4x64 words, keyed by what they are for, never by rank.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
NumPy's raw stream is the definition; anything else that makes these words must match it.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """Purpose of a stream of words: the second word of the Philox key. Numbers are part of the definition of a run."""

    PARAMS = 1
    PERMUTATION = 2
    SYNTHETIC = 3
    ENCODE = 4
    LOW_RANK = 5
    PARTITION = 6
    CLIENTS = 7
    CLIENT_ORDER = 8
    DROP = 9
    STRAGGLE = 10
    CLIENT_ENCODE = 11
    NOISE = 12
    MASK = 13
    AUGMENT = 14
    VALIDATION = 15
    DROPOUT = 16
    SWEEP = 20


WORDS_PER_BLOCK = 4
"""What a value of Philox's counter makes."""


def words(seed: int, purpose: Purpose, index: int, count: int, block: int = 0) -> NDArray[np.uint64]:
    """`count` raw words, uint64, of stream `index` (an epoch, a tensor, a step) of (seed, purpose), from a block on."""
    counter = np.array([block, 0, index, 0], dtype=np.uint64)
    key = np.array([seed, purpose], dtype=np.uint64)
    raw: NDArray[np.uint64] = np.random.Philox(counter=counter, key=key).random_raw(count)
    return raw


def sample_words(
    seed: int,
    purpose: Purpose,
    epoch: int,
    samples: NDArray[np.int64],
    count: int,
    part: int = 0,
    out: NDArray[np.uint64] | None = None,
) -> NDArray[np.uint64]:
    """Returns `count` raw words for each of `samples` in an epoch, uint64 (R, count), whatever stands beside it.

    Args:
        seed: That of the run.
        purpose: What the words are for.
        epoch: The epoch, from 0.
        samples: The samples' numbers in the data set, int64 (R,).
        count: Words of a sample.
        part: A stream of its own for each part of the network, as a layer.
        out: Where the words go, uint64 (R, count); None: into a new array.

    >>> alone = sample_words(0, Purpose.AUGMENT, 3, np.array([7]), 2)
    >>> bool((sample_words(0, Purpose.AUGMENT, 3, np.array([9, 7]), 2)[1] == alone).all())
    True
    """
    out = np.empty((len(samples), count), np.uint64) if out is None else out
    generator = np.random.Philox(counter=[0, 0, epoch, part], key=np.array([seed, purpose], np.uint64))
    # A state that is set costs a quarter of a new generator.
    state = generator.state
    for row, sample in zip(out, samples.tolist(), strict=True):
        state["state"]["counter"][1] = sample
        generator.state = state
        row[:] = generator.random_raw(count)
    return out


def uniforms(seed: int, purpose: Purpose, index: int, count: int) -> NDArray[np.float64]:
    """`count` float64 values in [0, 1): the upper 53 bits of each word, exact on every machine."""
    return (words(seed, purpose, index, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, num_samples: int, purpose: Purpose = Purpose.PERMUTATION) -> NDArray[np.int64]:
    """The order of an epoch's samples, int64 (num_samples,): a stable argsort of raw words, a function of (seed, epoch)."""
    keys = words(seed, purpose, epoch, num_samples)
    # NumPy's fast sort is not stable, which shows only where two words are equal: once in 10^10 epochs of 60,000.
    order = np.argsort(keys)
    ordered = keys[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.argsort(keys, kind="stable")
    return order.astype(np.int64)
