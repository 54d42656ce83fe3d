"""The augmentation of the CUDA backend: maps with the bits of the reference, calls within `fused`, faults that are found."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from augment_laws import AFFINE, EPOCH, OFFSET, Images
from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.reference.augment import augment
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.model.layers import dense_layers
from ddpgd.model.network import Network
from ddpgd.params import initialise

from . import fake_cupy
from .planting import BARRIER, ORDERS, Compare, Device, Fault, order_that_shows, run

Array = NDArray[Any]

NUM_ROWS = 5
MAPS = [
    Augmentation(0, (28, 28), **AFFINE),
    Augmentation(2**63 + 1, (9, 14), shift=3.0, rotate=180.0, scale=0.9, shear=80.0),
]
LARGE = Augmentation(5, (60, 50), elastic_alpha=9.0, elastic_sigma=1.5)
ELASTIC = Augmentation(4, (19, 23), shift=4.0, elastic_alpha=30.0, elastic_sigma=1.5)


def pixels(device: Device, augmentation: Augmentation) -> tuple[Array, Array, Array]:
    """The kernel's pixels, 0 to 255, its labels, and the pixels of the reference."""
    from ddpgd.kernels.cuda.augment import Augment

    images, (rows, cols) = Images(augmentation.image_shape), augmentation.image_shape
    there = [device.put(array) for array in (images.pixels, images.labels, images.order, images.cursor)]
    x, y = device.put(np.zeros((NUM_ROWS, rows * cols), np.float32)), device.put(np.zeros(NUM_ROWS, np.int64))
    factors = np.float32(1.0), np.float32(0.0)
    Augment(device.launch)((*there, np.int64(OFFSET), *factors), augmentation, x, y)
    samples = images.samples(NUM_ROWS)
    np.testing.assert_array_equal(y.get(), images.labels[samples])
    return x.get(), samples, augment(Scratch(), images.pixels, samples, EPOCH, augmentation)


def maps(device: Device) -> None:
    """Bit for bit."""
    for augmentation in MAPS:
        found, _, wanted = pixels(device, augmentation)
        np.testing.assert_array_equal(found, wanted)


def fields(device: Device) -> None:
    """Sums of products are in another order here."""
    found, _, wanted = pixels(device, ELASTIC)
    np.testing.assert_allclose(found, wanted, atol=0.02)


def large(device: Device) -> None:
    """More draws than a thread block makes in one turn, and fields that are not in shared memory."""
    found, _, wanted = pixels(device, LARGE)
    np.testing.assert_allclose(found, wanted, atol=0.02)


FAULTS = (
    Fault("the next sample", maps, "order[cursor[FIRST] + offset + row]", "order[cursor[FIRST] + offset + row + 1]"),
    Fault("an epoch of its own", maps, "cursor[EPOCH]", "cursor[STEP]"),
    Fault("draws of the row", maps, "AUGMENT, epoch, sample, 0, 0)", "AUGMENT, epoch, row, 0, 0)"),
    Fault("the lower half twice", maps, "32 * (j % 2)", "32 * 0"),
    Fault("the sine of another series", maps, "72, 42, 20, 6}", "72, 42, 20, 7}"),
    Fault("turned the other way", maps, "__fdiv_rn(turned.sine, height)", "__fdiv_rn(-turned.sine, height)"),
    Fault("sheared by the sine", maps, "__fdiv_rn(slant.sine, slant.cosine)", "slant.sine"),
    Fault("the corner's centre", maps, "0.5f * (rows - 1)", "0.5f * rows"),
    Fault("the next pixel", maps, "image.at(above, left + 1)", "image.at(above, left + 2)"),
    Fault("edges repeated", maps, "return inside ? ", "return column >= 0 ? "),
    Fault("another row's pixels", maps, "images + sample * size", "images + row * size"),
    Fault("maps read before they are made", maps, f"{BARRIER}    for (int field", "    for (int field"),
    Fault("fields that are maps' draws", fields, "0, 1 + first / HALVES", "0, first / HALVES"),
    Fault("draws of one turn", large, "first += HALVES * THREADS", "first += 2 * size"),
    Fault("smoothed before drawn", fields, f"{BARRIER}    for (int field", "    for (int field"),
    Fault("smoothed down before across", fields, f"}}\n{BARRIER}    for (int i", "}\n    for (int i"),
    Fault("read before smoothed", fields, f"}}\n{BARRIER}}}", "}\n}"),
    Fault("a neighbour fewer", fields, "at + radius + 1)", "at + radius - 1)"),
    Fault("columns by rows", fields, "columns, i / columns, rows, weights", "columns, i / columns, columns, weights"),
    Fault("one field twice", fields, "fields[size + i]", "fields[i]"),
    Fault("without alpha", fields, "weights, radius), alpha)", "weights, radius), 1.0f)"),
)


@pytest.mark.parametrize("compare", [maps, fields, large], ids=lambda compare: compare.__name__)
@pytest.mark.parametrize("order", ORDERS)
def test_the_text_as_it_is_passes(compare: Compare, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(compare, order, monkeypatch)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_that_shows(fault, monkeypatch)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_calls_within_fused_have_the_bits_of_single_ones(precision: str) -> None:
    outputs = []
    with fake_cupy.install():
        from ddpgd.kernels.cuda.backend import Cuda

        for is_fused in (False, True):
            ops: Any = Cuda(0, precision)
            images = Images(ELASTIC.image_shape)
            network = Network(ops, dense_layers((images.pixels.shape[1], 12, 10), "relu"), "cross-entropy", NUM_ROWS)
            params = ops.from_host(initialise(network.layout, "he", 1))
            weights = ops.round_weights(params)
            arrays = (images.pixels, images.labels, images.order, images.cursor)
            there = [ops.from_host(array) for array in arrays]
            with ops.fused() if is_fused else nullcontext():
                network.load(*there, OFFSET, NUM_ROWS, augmentation=ELASTIC)
                logits = network.forward(params, weights, NUM_ROWS, NUM_ROWS)
            outputs.append(ops.to_host(logits).tobytes())
    assert outputs[0] == outputs[1]
