"""Randomness: frozen words, permutations that permute, streams that differ."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpgd.kernels.philox import WORDS_PER_BLOCK, Purpose, permutation, sample_words, uniforms, words

LARGEST_SEED = 2**64 - 1

# The definition of every run rests on these: (seed, purpose, stream) -> first words.
FROZEN = [
    (0, Purpose.PARAMS, 0, [15003734204198539638, 13859618513508960101, 12389738016430293093]),
    (LARGEST_SEED, Purpose.PERMUTATION, 7, [10523882607424286496, 2232986504320118337]),
]

FROZEN_OF_SAMPLES = [[10897699662901609475, 3922611590645106045], [14679008726634047885, 8297688857334039311]]


@pytest.mark.parametrize(("seed", "purpose", "stream", "wanted"), FROZEN)
def test_frozen_words(seed: int, purpose: Purpose, stream: int, wanted: list[int]) -> None:
    assert words(seed, purpose, stream, len(wanted)).tolist() == wanted


@given(st.integers(0, LARGEST_SEED), st.sampled_from(Purpose), st.integers(0, 9), st.integers(1, 9))
def test_words_may_begin_at_any_block(seed: int, purpose: Purpose, block: int, count: int) -> None:
    skipped = WORDS_PER_BLOCK * block
    wanted = words(seed, purpose, 3, skipped + count)[skipped:]
    assert words(seed, purpose, 3, count, block).tolist() == wanted.tolist()


def test_frozen_words_of_samples() -> None:
    found = sample_words(5, Purpose.AUGMENT, 2, np.array([7, 59_999]), 2, part=1)
    assert found.tolist() == FROZEN_OF_SAMPLES


@given(st.integers(0, LARGEST_SEED), st.integers(0, 10**6), st.permutations(range(9)), st.integers(1, 9))
def test_words_of_a_sample_depend_on_no_other(seed: int, epoch: int, samples: list[int], count: int) -> None:
    found = sample_words(seed, Purpose.AUGMENT, epoch, np.array(samples), count + 1)
    for sample, own in zip(samples, found, strict=True):
        alone = sample_words(seed, Purpose.AUGMENT, epoch, np.array([sample]), count)
        assert alone.tolist() == [own[:count].tolist()]


def test_words_of_samples_epochs_and_parts_differ() -> None:
    found = [
        sample_words(seed, Purpose.AUGMENT, epoch, np.arange(50), 20, part)
        for seed in (0, 1)
        for epoch in (0, 1, 2)
        for part in (0, 1)
    ]
    assert len(np.unique(found)) == 12 * 50 * 20


@pytest.mark.parametrize(
    ("seed", "epoch", "wanted"),
    [
        (0, 0, [6, 7, 2, 9, 1, 3, 5, 0, 4, 8]),
        (0, 1, [9, 8, 5, 7, 2, 1, 3, 6, 0, 4]),
        (1, 0, [4, 2, 0, 6, 1, 5, 9, 8, 7, 3]),
    ],
)
def test_frozen_permutations(seed: int, epoch: int, wanted: list[int]) -> None:
    assert permutation(seed, epoch, 10).tolist() == wanted


def test_frozen_order_of_mnist() -> None:
    assert permutation(0, 0, 60_000)[:5].tolist() == [54095, 44967, 25883, 5727, 50021]


def test_purposes_keep_their_numbers() -> None:
    assert [Purpose(number).name for number in (1, 2, 3)] == ["PARAMS", "PERMUTATION", "SYNTHETIC"]


@given(st.integers(0, LARGEST_SEED), st.integers(0, 10**6), st.integers(1, 2000))
def test_a_permutation_holds_every_index_once(seed: int, epoch: int, num_samples: int) -> None:
    order = permutation(seed, epoch, num_samples)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(num_samples))


def test_seeds_and_epochs_order_differently() -> None:
    orders = [permutation(seed, epoch, 1000) for seed in (0, 1, 2**32, LARGEST_SEED) for epoch in (0, 1, 2)]
    for left, right in combinations(orders, 2):
        assert not np.array_equal(left, right)


def test_streams_do_not_overlap() -> None:
    """Streams of other purposes and indices share no word, nor does a long stream run into the next one."""
    keys = [(seed, purpose, stream) for seed in (0, 1) for purpose in Purpose for stream in (0, 1, 2)]
    streams = [words(*key, 20_000) for key in keys]
    assert len(np.unique(np.concatenate(streams))) == 20_000 * len(keys)


@given(st.integers(1, 100), st.integers(1, 100))
def test_a_stream_begins_alike_whatever_its_length(count: int, more: int) -> None:
    np.testing.assert_array_equal(words(3, Purpose.PARAMS, 4, count + more)[:count], words(3, Purpose.PARAMS, 4, count))


def test_uniforms_are_the_upper_bits_below_one() -> None:
    raw, values = words(9, Purpose.PARAMS, 0, 10_000), uniforms(9, Purpose.PARAMS, 0, 10_000)
    assert values.tolist() == [(int(word) >> 11) / 2**53 for word in raw]
    assert 0 <= values.min() < 0.001
    assert 0.999 < values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.02)
