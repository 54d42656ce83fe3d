"""Faults planted in the text of the small kernels are found."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.wires import FORMATS
from ddpgd.kernels.dropout import Dropout
from ddpgd.kernels.philox import Purpose, sample_words, words
from ddpgd.kernels.reference import codecs
from ddpgd.kernels.words import BLOCK, CONTROL_WORDS, TAIL_WORDS, Control, Tail
from ddpgd.optim.rules import ELEMENTWISE
from op_laws import hyper_of, vectors_of, wanted_update
from oracles import bits, tree_fold, uneven

from .planting import BARRIER, ORDERS, Compare, Device, Fault, order_that_shows, run

Array = NDArray[Any]

NO_POINTER = np.intp(0)


def gathers(device: Device) -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (40, 48), dtype=np.uint8), rng.integers(0, 10, 40, dtype=np.uint8)
    order, cursor = rng.permutation(40), np.array([5, 0, 0, 0])
    x, y = device.put(np.zeros((9, 48), np.float32)), device.put(np.zeros(9, np.int64))
    samples = [device.put(array) for array in (images, labels, order, cursor)]
    factors, sizes = (np.float32(0.5), np.float32(1.0)), (np.int32(9), np.int32(48))
    device.launch("gather.cu", "gather_normalise", (1,), (256,), *samples, np.int64(3), *factors, x, y, *sizes)
    np.testing.assert_array_equal(x.get(), images[order[8:17]] * np.float32(0.5) - np.float32(1))
    np.testing.assert_array_equal(y.get(), labels[order[8:17]])


def sums_trees(device: Device) -> None:
    for groups in (1, 2, 3, 6, 7, 13, 21):
        rows = uneven(groups, groups, 10)
        there, out = device.put(rows.copy()), device.put(np.zeros(10, np.float32))
        sizes = np.int64(10), np.int32(groups)
        device.launch("reduce.cu", "tree_sum", (1,), (256,), there, *sizes, out, np.int64(10))
        np.testing.assert_array_equal(bits(out.get()), bits(tree_fold(list(rows))))


def takes_norms(device: Device) -> None:
    """Whole numbers, whose sums of squares are exact in any order; twice, because counters must be as before."""
    rows = np.random.default_rng(2).integers(-4, 5, (2, 270 * BLOCK)).astype(np.float32)
    counters, partials = device.put(np.zeros(2, np.int32)), device.put(np.full(2 * 279, np.nan, np.float32))
    there = device.put(rows)
    for _ in range(2):
        out = device.put(np.zeros(2, np.float32))
        sizes = np.int64(270 * BLOCK), np.int32(270), np.int32(1)
        scratch = partials, counters, out, np.int64(1)
        device.launch("reduce.cu", "squared_norms", (270, 2), (256,), there, *sizes, *scratch)
        np.testing.assert_array_equal(out.get(), (rows.astype(np.float64) ** 2).sum(axis=1))


def takes_losses(device: Device) -> None:
    """Errors that are whole numbers, so that the sums are exact; two micro-batches, the last one shorter."""
    rng = np.random.default_rng(3)
    logits, labels = rng.integers(-9, 10, (450, 4)).astype(np.float32), rng.integers(0, 4, 450)
    control = np.zeros(CONTROL_WORDS)
    control[Control.LOSS_SCALE] = 2
    dlogits, tails = device.put(np.zeros((450, 4), np.float32)), device.put(np.full((2, 11), np.nan, np.float32))
    partials, counters = device.put(np.full(4 * 4, np.nan, np.float32)), device.put(np.zeros(2, np.int32))
    sizes = np.int32(450), np.int32(4), np.int32(300), np.float32(0)
    scratch = np.int64(11), partials, counters
    there = device.put(logits), device.put(labels), *sizes, device.put(control), dlogits, tails
    device.launch("loss.cu", "mean_squared_error", (3, 2), (128,), *there, *scratch)
    errors = logits - np.eye(4)[labels]
    hits = logits.argmax(axis=1) == labels
    np.testing.assert_array_equal(dlogits.get(), errors)
    wanted = np.full((2, 11), np.nan)
    wanted[:, :TAIL_WORDS] = 0
    for tail, part in zip(wanted, (slice(0, 300), slice(300, 450)), strict=True):
        tail[Tail.LOSS_SUM], tail[Tail.CORRECT] = (errors[part] ** 2).sum() / 4, hits[part].sum()
        tail[Tail.SAMPLES] = part.stop - part.start
    np.testing.assert_array_equal(tails.get(), wanted)


def updates(device: Device) -> None:
    """Every rule, applied and not, at a ragged length."""
    size = 1021
    for rule in ELEMENTWISE.values():
        arrays = [vector.astype(np.float32) for vector in vectors_of(rule, np.random.default_rng(4), size)]
        wanted = wanted_update(rule, arrays, 0.125, 0.5, 0.25, 3)
        hyper = list(hyper_of(rule).values())
        factors = [np.float64(value) for value in (*hyper, *[0.0] * (4 - len(hyper)))]
        for apply in (0, 1):
            control = np.zeros(CONTROL_WORDS)
            control[[Control.LR, Control.SCALE, Control.APPLY, Control.UPDATE]] = 0.5, 0.25, apply, 3
            there = [device.put(array) for array in arrays]
            vectors = *there, *[NO_POINTER] * (3 - len(rule.state))
            others = np.float32(0.125), *factors, NO_POINTER, np.int64(size), device.put(control)
            device.launch("optimizer.cu", rule.name, (1,), (256,), *vectors, *others)
            for array, before, after in zip(there, arrays, wanted, strict=True):
                np.testing.assert_allclose(array.get(), after if apply else before, rtol=1e-5, atol=1e-6)


def codes(device: Device) -> None:
    """Every format with all its parts, as the reference has it."""
    key = np.array([1, Purpose.PARAMS, 2], np.uint64)
    for name, format in FORMATS.items():
        values, residual = uneven(5, 2500), uneven(6, 2500)
        coded, exponents, decoded = np.zeros(2500, format.dtype), np.zeros(3, np.int16), np.zeros(2500, np.float32)
        there = [device.put(array) for array in (values, residual, key)]
        out, back = [device.put(array) for array in (coded, exponents)], device.put(decoded)
        size = np.int64(2500)
        device.launch("codec.cu", f"encode_{name}", (3,), (256,), *there, np.int64(3 * BLOCK), *out, size)
        codecs.encode(name, values, residual, key, 3 * BLOCK, coded, exponents)
        np.testing.assert_array_equal(out[0].get(), coded)
        np.testing.assert_array_equal(out[1].get(), exponents)
        np.testing.assert_array_equal(bits(there[1].get()), bits(residual))
        device.launch("codec.cu", f"decode_{name}", (3,), (256,), *out, back, size)
        codecs.decode(name, coded, exponents, decoded)
        np.testing.assert_array_equal(back.get(), decoded)


def draws(device: Device) -> None:
    key, out = np.array([7, Purpose.PERMUTATION, 8], np.uint64), device.put(np.zeros(1030, np.uint64))
    device.launch("philox.cu", "random_words", (2,), (256,), device.put(key), out, np.int64(1030))
    np.testing.assert_array_equal(out.get(), words(7, Purpose.PERMUTATION, 8, 1030))


def smooths_labels(device: Device) -> None:
    """Half of each label spread over four classes: probabilities and slopes are exact, logarithms nearly."""
    logits, control = np.log(np.array([[1, 1, 2, 4], [8, 4, 2, 2]], np.float32)), np.zeros(CONTROL_WORDS)
    control[Control.LOSS_SCALE] = 1
    dlogits, tails = device.put(np.zeros((2, 4), np.float32)), device.put(np.zeros((1, TAIL_WORDS), np.float32))
    sizes = np.int32(2), np.int32(4), np.int32(2), np.float32(0.5)
    scratch = np.int64(TAIL_WORDS), device.put(np.zeros(4, np.float32)), device.put(np.zeros(1, np.int32))
    there = device.put(logits), device.put(np.array([2, 0])), *sizes, device.put(control), dlogits, tails
    device.launch("loss.cu", "cross_entropy", (1, 1), (128,), *there, *scratch)
    softmax = np.array([[1, 1, 2, 4], [4, 2, 1, 1]]) / 8
    targets = np.array([[1, 1, 5, 1], [5, 1, 1, 1]]) / 8
    np.testing.assert_allclose(dlogits.get(), softmax - targets, atol=1e-6)
    np.testing.assert_allclose(tails.get()[0, Tail.LOSS_SUM], -(targets * np.log(softmax)).sum(), rtol=1e-6)


def drops_units(device: Device) -> None:
    """Windows of columns that begin within a block of draws."""
    drop, order, cursor = Dropout(2**63 + 1, 3, 0.25), np.arange(50)[::-1].copy(), np.array([4, 0, 0, 5])
    x, out = np.arange(1, 9 * 60 + 1, dtype=np.float32).reshape(9, 60), device.put(np.zeros((9, 70), np.float32))
    samples = device.put(order), device.put(cursor), np.int64(2)
    key = (
        np.uint64(drop.seed),
        np.uint64(Purpose.DROPOUT),
        np.int32(3),
        np.int32(drop.threshold),
        np.float32(drop.scale),
    )
    sizes = np.int32(9), np.int32(21), np.int32(60)
    device.launch(
        "dropout.cu", "dropout", (1,), (256,), device.put(x), np.int64(60), *samples, *key, out, np.int64(70), *sizes
    )
    words_of = sample_words(drop.seed, Purpose.DROPOUT, 5, order[6:15], 21, 3)
    kept = words_of.view(np.uint16)[:, 21:81] >= drop.threshold
    wanted = np.zeros((9, 70), np.float32)
    wanted[:, :60] = x * (kept * np.float32(drop.scale))
    np.testing.assert_array_equal(out.get(), wanted)


def limits_norms(device: Device) -> None:
    """Powers of two, so that norms are exact; a column of the limit stays."""
    weight, control = np.zeros((40, 40), np.float32), np.zeros(CONTROL_WORDS)
    weight[:4], weight[36:, 1::2] = 1, 2
    weight[:, 2], weight[:, 4] = np.arange(40) < 16, np.abs(np.arange(40) - 23.5) < 8
    control[Control.APPLY] = 1
    there = device.put(weight)
    sizes = np.float32(2), np.int32(40), np.int32(40)
    device.launch("limit_norms.cu", "limit_norms", (2,), (1024,), there, NO_POINTER, device.put(control), *sizes)
    wanted = weight * np.minimum(1, 2 / np.linalg.norm(weight.astype(np.float64), axis=0))
    np.testing.assert_allclose(there.get(), wanted, rtol=1e-6)


COMPARISONS = (
    gathers,
    sums_trees,
    takes_norms,
    takes_losses,
    updates,
    codes,
    draws,
    smooths_labels,
    drops_units,
    limits_norms,
)


FAULTS = (
    Fault("gather: the next sample", gathers, "offset + row]", "offset + row + 1]"),
    Fault("gather: labels of rows", gathers, "labels[sample]", "labels[row]"),
    Fault("gather: the next pixel", gathers, "first = 16 * (item", "first = 1 + 16 * (item"),
    Fault("tree_sum: the last leaf", sums_trees, "(num_rows + 3) / 4", "(num_rows + 2) / 4"),
    Fault("tree_sum: rows beyond", sums_trees, "left < 4 ? left : 4", "4"),
    Fault("tree_sum: in line", sums_trees, "num_rows > 3 ? sum_of(row[2], row[3])", "false ? row[3]"),
    Fault("tree_sum: one level up", sums_trees, "(leaf >> level & 1)", "(leaf >> level & 2)"),
    Fault(
        "block_sum: read before written",
        takes_norms,
        f"= value;\n{BARRIER}    return warp_sum(",
        "= value;\n    return warp_sum(",
    ),
    Fault(
        "block_sum: written before read",
        takes_losses,
        "    __syncthreads();  // a sum before this one may still be read\n",
        "",
    ),
    Fault(
        "tree_over: no barrier",
        takes_norms,
        "        __syncthreads();\n        float* const nodes",
        "float* const nodes",
    ),
    Fault("tree_over: half of the leaves", takes_norms, "base += blockDim.x", "base += 2 * blockDim.x"),
    Fault("is_last: told before known", takes_norms, f"    }}\n{BARRIER}    return last;", "    }\n    return last;"),
    Fault(
        "is_last: told before written",
        takes_norms,
        "        fence_device();\n        last =",
        "        last =",
    ),
    Fault(
        "is_last: read before told",
        takes_norms,
        "*counter = 0;\n        fence_device();",
        "*counter = 0;",
    ),
    Fault("is_last: never reset", takes_norms, "if (last) *counter = 0;", ""),
    Fault("is_last: too early", takes_norms, "== expected - 1", "== expected - 2"),
    Fault("smoothing: the slope alone", smooths_labels, "own * of_label + each * of_all", "of_label"),
    Fault("smoothing: the loss alone", smooths_labels, "probability - each -", "probability -"),
    Fault("smoothing: by no class", smooths_labels, "smoothing / num_classes", "smoothing"),
    Fault("dropout: of the next sample", drops_units, "offset + row];", "offset + row + 1];"),
    Fault("dropout: the epoch", drops_units, "cursor[EPOCH]", "cursor[STEP]"),
    Fault("dropout: the layer", drops_units, "sample, layer, block)", "sample, 0, block)"),
    Fault("dropout: the seed", drops_units, "philox_of_sample(seed,", "philox_of_sample(0,"),
    Fault(
        "dropout: the first unit",
        drops_units,
        "begin = UNITS * block - first;",
        "begin = UNITS * (block - first_block);",
    ),
    Fault("dropout: a draw of another unit", drops_units, "16 * (j % 4)", "16 * (3 - j % 4)"),
    Fault("dropout: not scaled", drops_units, "? 0.0f : scale", "? 0.0f : 1.0f"),
    Fault("dropout: one draw more", drops_units, "draw < threshold", "draw < threshold + 4000"),
    Fault("dropout: past the columns", drops_units, "|| column >= num_columns", ""),
    Fault("norms: rows of the first lanes alone", limits_norms, "row < num_rows && column", "row < LANES && column"),
    Fault("norms: one level fewer", limits_norms, "span < LANES; span *= 2", "span < LANES / 2; span *= 2"),
    Fault(
        "norms: added before written",
        limits_norms,
        "        __syncthreads();\n        if (lane %",
        "        if (lane %",
    ),
    Fault("norms: the square", limits_norms, "sqrtf(sums[0][own])", "sums[0][own]"),
    Fault("losses: a row too many", takes_losses, "if (within < samples)", "if (within <= samples)"),
    Fault("losses: one chunk", takes_losses, "within = chunk * ROWS", "within = 0 * ROWS"),
    Fault("losses: chunks of the largest", takes_losses, "if (chunk >= chunks) return;", ""),
    Fault("store: past the end", updates, "if (first + j < end) to[j]", "to[j]"),
    Fault("store: four at the end", updates, "if (first + N <= end && is_aligned<N>(to))", "if (true)"),
    Fault("updates: none", updates, "control[APPLY] == 0", "control[APPLY] != 0"),
    Fault("updates: always", updates, "control[APPLY] == 0", "false"),
    Fault("updates: the state is not kept", updates, "held[v].at[j] = state[v]", "held[v].at[j] = held[v].at[j]"),
    Fault("updates: one vector fewer", updates, "v < R::NUM_VECTORS", "v < R::NUM_VECTORS - 1"),
    Fault("nesterov: not ahead", updates, "return __fadd_rn(g, __fmul_rn", "return __fmul_rn(g, __fmul_rn"),
    Fault(
        "adamw: decay at the rate of adam",
        updates,
        "__fmul_rn(rule.rate, weight_decay)",
        "__fmul_rn(rule.lr, weight_decay)",
    ),
    Fault(
        "lion: the sign of the momentum alone",
        updates,
        "__fadd_rn(__fmul_rn(share, state[0]), g)",
        "__fmul_rn(share, state[0])",
    ),
    Fault("rmsprop: no root", updates, "sqrtf(state[0]), epsilon", "state[0], epsilon"),
    Fault("adam: used before computed", updates, f"        }}\n    {BARRIER}", "        }\n"),
    Fault("block_max: read before written", codes, f"= value;\n{BARRIER}    value =", "= value;\n    value ="),
    Fault("codec: draws before words", codes, "offset + begin);\n        __syncthreads();", "offset + begin);"),
    Fault("codec: the other half", codes, "? 8 : 40", "? 40 : 8"),
    Fault("codec: one block of Philox fewer", codes, "words[4 * block + j] =", "words[4 * block + 4 + j] ="),
    Fault("codec: one power less", codes, "(F::TOP) - largest) >> 23", "(F::TOP) - largest - 0x800000u) >> 23"),
    Fault("codec: scaled up on the way back", codes, "power_of_two(-exponent)", "power_of_two(exponent)"),
    Fault("philox: one block early", draws, "{{block + 1,", "{{block,"),
    Fault("philox: nine rounds", draws, "round < 10", "round < 9"),
    Fault("philox: past the end", draws, "if (4 * block + j < n) ", ""),
)


@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda compare: compare.__name__)
@pytest.mark.parametrize("order", ORDERS)
def test_the_text_as_it_is_passes(compare: Compare, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(compare, order, monkeypatch)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_that_shows(fault, monkeypatch)
