"""Buckets: the model's choice is the best of all; few rather than many; and windows make a whole row of any cuts."""

from itertools import combinations

import numpy as np
import pytest

from ddpgd.comm.buckets import Layer, Schedule, all_cuts, choose, least_ends
from ddpgd.comm.windows import buckets, windows
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import BLOCK, TAIL_WORDS
from ddpgd.model.layers import dense_layers, layer_starts
from ddpgd.model.network import Network

LATENCY_S, RATE = 10e-6, 1e9


def sum_s(bucket: slice) -> float:
    return 2 * LATENCY_S + 4 * (bucket.stop - bucket.start) / RATE


def exposed_s(layers: list[Layer], size: int, cuts: tuple[int, ...]) -> float:
    """Plays the backward pass and the sums after each other."""
    end_s = 0.0
    for bucket in buckets(size, cuts):
        ready_s = sum(layer.backward_s for layer in layers if layer.start >= bucket.start)
        end_s = max(end_s, ready_s) + sum_s(bucket)
    return end_s - sum(layer.backward_s for layer in layers)


def network(seed: int, num_layers: int) -> tuple[list[Layer], int]:
    draws = np.random.default_rng(seed)
    ends = np.cumsum(draws.integers(1, 60, num_layers)) * BLOCK
    starts = [0, *(int(end) for end in ends[:-1])]
    return [Layer(start, float(draws.uniform(0, 300e-6))) for start in starts], int(ends[-1])


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    layers, size = network(seed, 1 + seed % 7)
    every = all_cuts(layers, size)
    found = least_ends(layers, size, sum_s)
    assert [len(one.cuts) for one in found] == list(range(len(every) + 1))
    for count, one in enumerate(found):
        exposed = [exposed_s(layers, size, cuts) for cuts in combinations(every, count)]
        assert one.exposed_s == pytest.approx(min(exposed), abs=1e-12)
        assert exposed_s(layers, size, one.cuts) == pytest.approx(one.exposed_s, abs=1e-12)


def test_a_gain_below_two_latencies_is_none() -> None:
    layers, size = [Layer(0, 5e-6), Layer(8 * BLOCK, 5e-6)], 16 * BLOCK
    assert choose(layers, size, sum_s, LATENCY_S).cuts == ()
    longer = [Layer(0, 500e-6), Layer(8 * BLOCK, 5e-6)]
    assert choose(longer, size, sum_s, LATENCY_S) == Schedule((8 * BLOCK,), pytest.approx(sum_s(slice(0, 8 * BLOCK))))
    assert choose(longer, size, sum_s, 1.0).cuts == ()


def test_of_equal_choices_the_one_with_fewest_buckets_counts() -> None:
    layers = [Layer(0, 1.0), Layer(8 * BLOCK, 1.0), Layer(16 * BLOCK, 1.0)]
    assert len(choose(layers, 24 * BLOCK, sum_s, LATENCY_S).cuts) == 1


@pytest.mark.parametrize("cuts", [(), (BLOCK,), (5 * BLOCK, 3 * BLOCK), (6 * BLOCK, 5 * BLOCK, BLOCK)])
@pytest.mark.parametrize("num_owners", [1, 2, 3, 4])
@pytest.mark.parametrize("joined", [True, False])
def test_windows_of_all_buckets_are_the_whole_row(cuts: tuple[int, ...], num_owners: int, joined: bool) -> None:
    size = 7 * BLOCK
    seen = np.zeros(size + TAIL_WORDS, int)
    parts = buckets(size, cuts)
    for bucket in parts:
        for window in windows(size, num_owners, joined, bucket, bucket.stop == size):
            seen[window.span] += 1
            assert window.span.start % BLOCK == 0
            assert window.is_tail == (not joined and window.span.start == size)
    assert (seen == 1).all()
    assert [bucket.start for bucket in parts] == sorted((bucket.start for bucket in parts), reverse=True)


@pytest.mark.parametrize("sizes", [(784, 40, 10), (784, 30, 40, 40, 10), (3, 2, 2, 2), (784, 10)])
def test_the_layers_of_buckets_are_all_layers_and_hold_their_tensors(sizes: tuple[int, ...]) -> None:
    layers = dense_layers(sizes, "relu")
    network = Network(Reference(), layers, "mse", 4)
    starts, tensors = layer_starts(layers), network.layout.tensors
    cuts = all_cuts([Layer(start, 0.0) for start in starts], network.layout.size)
    ranges = [network.layers_in(bucket) for bucket in buckets(network.layout.size, cuts)]
    assert ranges == [range(number, number + 1) for number in reversed(range(len(layers)))]
    assert starts == [tensor.start for tensor in tensors[::2]]
