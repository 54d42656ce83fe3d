"""Arguments of the kernels that decide and update, in the order of `decide.cu` and `update.cuh`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddpgd.kernels.cuda.launcher import check
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.words import HISTORY_WORDS, Policy

UPDATE_VECTORS, UPDATE_FACTORS = 3, 4
"""Vectors and hyper-parameters that the kernels of update rules take; `update.cuh` has the same numbers."""


def decision_words(
    tail: Array, rates: Array, cursor: Array, control: Array, history: Array, policy: Policy
) -> tuple[Any, ...]:
    """Returns the words that a decision reads and writes, and its policy."""
    assert history.shape[1] == HISTORY_WORDS
    return (
        *(tail, rates, cursor, control, history, np.int32(len(history))),
        np.int32(policy.global_batch),
        np.float64(policy.clip_norm),
        np.int32(policy.growth_interval),
        np.float64(policy.largest_loss_scale),
        np.float64(policy.clip_value),
    )


def update_arguments(
    params: Array, grads: Array, state: Sequence[Array], weight_decay: float, hyper: Sequence[float], weights: Array
) -> tuple[Any, ...]:
    """Returns the vectors and hyper-parameters of an update."""
    for vector in (params, grads, *state):
        check(vector, np.float32)
    vectors = *state, *[None] * (UPDATE_VECTORS - len(state))
    factors = [np.float64(value) for value in (*hyper, *[0.0] * (UPDATE_FACTORS - len(hyper)))]
    assert len(vectors) == UPDATE_VECTORS
    assert len(factors) == UPDATE_FACTORS
    copy = None if weights is params else weights
    return params, grads, *vectors, np.float32(weight_decay), *factors, copy, np.int64(params.size)
