"""Layout and first weights: where tensors lie, what they start as, and the frozen bits of both."""

import hashlib
import math
from itertools import pairwise

import numpy as np
import pytest

from ddpgd.kernels.words import BLOCK
from ddpgd.params import Parameter, initialise, layout_of
from oracles import dense_layout

SIZES = [(784, 10), (784, 256, 10), (5, 3, 2), (784, 512, 512, 10), (1, 1), (33, 31, 7)]
over_sizes = pytest.mark.parametrize("sizes", SIZES, ids=str)


@over_sizes
def test_layers_begin_at_blocks_and_tensors_are_aligned_disjoint_and_in_order(sizes: tuple[int, ...]) -> None:
    layout, end = dense_layout(sizes), 0
    for tensor in layout.tensors:
        assert tensor.start % 32 == 0
        assert end <= tensor.start < end + BLOCK
        end = tensor.start + tensor.size
    assert end <= layout.size < end + BLOCK
    assert [unit.start for unit in layout.units] == [weight.start for weight in layout.tensors[::2]]
    for unit, following in pairwise((*layout.units, slice(layout.size, None))):
        assert unit.start % BLOCK == 0
        assert unit.stop == following.start


@over_sizes
def test_names_shapes_and_count(sizes: tuple[int, ...]) -> None:
    layout = dense_layout(sizes)
    names = [f"dense{layer}.{part}" for layer in range(1, len(sizes)) for part in ("weight", "bias")]
    shapes = [shape for layer in range(1, len(sizes)) for shape in (sizes[layer - 1 : layer + 1], (sizes[layer],))]
    assert [tensor.name for tensor in layout.tensors] == names
    assert [tensor.shape for tensor in layout.tensors] == shapes
    assert layout.num_params == sum(math.prod(shape) for shape in shapes)


@over_sizes
def test_views_are_windows_of_the_vector(sizes: tuple[int, ...]) -> None:
    layout = dense_layout(sizes)
    vector = np.zeros(layout.size, np.float32)
    for number, view in enumerate(layout.views(vector), start=1):
        assert np.shares_memory(view, vector)
        assert view.flags.c_contiguous
        view += number
    assert np.count_nonzero(vector) == layout.num_params
    assert vector.max() == len(layout.tensors)


@over_sizes
@pytest.mark.parametrize("init", ["he", "xavier"])
def test_first_weights_fill_their_bounds_and_the_rest_is_zero(sizes: tuple[int, ...], init: str) -> None:
    layout = dense_layout(sizes)
    vector = initialise(layout, init, seed=0)
    assert vector.dtype == np.float32
    weights = 0
    for tensor, view in zip(layout.tensors, layout.views(vector), strict=True):
        if len(tensor.shape) == 1:
            assert not view.any()
            continue
        weights += tensor.size
        num_inputs, num_outputs = tensor.shape
        bound = math.sqrt(6 / (num_inputs if init == "he" else num_inputs + num_outputs))
        assert np.abs(view).max() <= np.float32(bound)
        if tensor.size > 5000:
            assert np.abs(view).max() > 0.999 * bound
            assert abs(view.mean()) < 5 * bound / math.sqrt(3 * tensor.size)
            assert view.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert np.count_nonzero(vector) <= weights


def test_layers_and_seeds_start_differently() -> None:
    layout = dense_layout((20, 20, 20))
    zero, one = initialise(layout, "he", 0), initialise(layout, "he", 1)
    first, second = layout.views(zero)[0], layout.views(zero)[2]
    assert not np.array_equal(first, second)
    assert not np.array_equal(zero, one)
    np.testing.assert_array_equal(zero, initialise(layout, "he", 0))


def test_frozen_first_weights() -> None:
    """Whoever changes these changes every run: the weights of a configuration are part of its definition."""
    layout = dense_layout((784, 256, 10))
    vector = initialise(layout, "he", 0)
    assert [tensor.start for tensor in layout.tensors] == [0, 200704, 201728, 204288]
    assert (layout.size, layout.num_params) == (204800, 203530)
    assert vector[:3].tolist() == [0.054825540632009506, 0.04397384077310562, 0.0300323273986578]
    assert layout.sha256(vector) == "e1c2946aaf641f1d4e19419c37b60bdbef8f21a8d879b364002bd9fd4f835a54"
    xavier = initialise(layout, "xavier", 1)
    assert layout.sha256(xavier) == "0eb2294cc7b1a38b55fd0822186aaca1c7ca886cfc809009cde14001fffdafe3"


def test_the_hash_is_that_of_the_tensors_bytes() -> None:
    layout = dense_layout((5, 3, 2))
    vector = initialise(layout, "he", 0)
    joined = b"".join(view.tobytes() for view in layout.views(vector))
    assert layout.sha256(vector) == hashlib.sha256(joined).hexdigest()


@pytest.mark.parametrize("number", range(4))
def test_the_hashes_name_the_tensor_that_changed(number: int) -> None:
    layout = dense_layout((5, 3, 2))
    vector = initialise(layout, "he", 0)
    before, whole = layout.hashes(vector), layout.sha256(vector)
    vector[layout.tensors[number].start] += 1
    after = layout.hashes(vector)
    assert [name for name in before if after[name] != before[name]] == [layout.tensors[number].name]
    assert layout.sha256(vector) != whole


def test_the_hash_leaves_padding_out() -> None:
    layout = dense_layout((5, 3, 2))
    vector = initialise(layout, "he", 0)
    before = layout.sha256(vector)
    vector[-1] = 1
    assert layout.sha256(vector) == before


CUT = layout_of(
    [Parameter("weight", (7, 10), True, (slice(0, 7), columns)), Parameter("bias", (10,), False, (columns,))]
    for columns in (slice(0, 3), slice(3, 6), slice(6, 10))
)
UNCUT = layout_of([[Parameter("weight", (7, 10), True), Parameter("bias", (10,))]])


def test_a_cut_changes_neither_tensors_nor_their_hashes() -> None:
    cut, uncut = (initialise(layout, "he", 3) for layout in (CUT, UNCUT))
    assert CUT.shapes == UNCUT.shapes
    assert CUT.num_params == UNCUT.num_params
    assert CUT.sha256(cut) == UNCUT.sha256(uncut)
    assert CUT.hashes(cut) == UNCUT.hashes(uncut)


def test_whole_tensors_are_put_together_and_cut_again() -> None:
    uncut = np.arange(UNCUT.size, dtype=np.float32)
    whole, cut = UNCUT.whole_tensors(uncut), np.zeros(CUT.size, np.float32)
    CUT.fill(cut, whole)
    for name, tensor in CUT.whole_tensors(cut).items():
        assert tensor.flags.c_contiguous
        np.testing.assert_array_equal(tensor, whole[name])


def test_units_are_found_in_a_layout_that_has_more() -> None:
    (span,) = layout_of([[Parameter("weight", (7, 10), True, (slice(0, 7), slice(3, 6)))]]).spans_in(CUT)
    assert span == CUT.units[1]
