"""Parts that tests of numbers share: the canonical sum written from its definition, values whose sums show their order."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.model.layers import dense_layers, network_layout
from ddpgd.params import Layout


def tree_fold(leaves: Sequence[Any], add: Callable[[Any, Any], Any] = operator.add) -> Any:
    """Complete binary tree over the indices of `leaves`; a node whose right half is empty is its left half."""

    def node(first: int, span: int) -> Any:
        if span == 1:
            return leaves[first]
        half = span // 2
        left = node(first, half)
        return add(left, node(first + half, half)) if first + half < len(leaves) else left

    return node(0, 1 << (len(leaves) - 1).bit_length())


def uneven(seed: int, *shape: int) -> NDArray[np.float32]:
    """Float32 values over ten orders of magnitude, both signs: sums in another order have other bits."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 10.0 ** rng.uniform(-5, 5, shape)).astype(np.float32)


def bits(array: NDArray[np.float32]) -> NDArray[np.uint32]:
    """The bit patterns, so that -0.0 differs from 0.0 and a NaN equals itself."""
    return np.ascontiguousarray(array).view(np.uint32)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of float32 values, rounded to the nearest, ties to even; for finite values."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(words: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16 words."""
    return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)


def largest_of_blocks(vector: NDArray[Any]) -> NDArray[np.float64]:
    """For each element, the largest magnitude in its block of 1,024."""
    padded = np.zeros(-(-len(vector) // 1024) * 1024)
    padded[: len(vector)] = np.abs(vector)
    return np.repeat(padded.reshape(-1, 1024).max(axis=1), 1024)[: len(vector)]


def dense_layout(sizes: Sequence[int]) -> Layout:
    """The layout of a network of dense layers."""
    return network_layout(dense_layers(sizes, "relu"))
