"""Fused ops: the bits that they have alone, in fewer launches, whatever network, batch and precision; faults are found."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config, resolve
from ddpgd.kernels.dropout import Dropout
from ddpgd.kernels.words import CONTROL_WORDS, CURSOR_WORDS, TAIL_WORDS, Control, Cursor
from ddpgd.model.layers import dense_layers
from ddpgd.model.network import Network
from ddpgd.params import initialise
from ddpgd.run import build
from runs import digits

from . import fake_cupy
from .planting import Device, Fault, agree, order_that_shows

NUM_IMAGES = 300


class Case(NamedTuple):
    """A network, a batch, and the numbers of launches of its gradients: each op alone, and fused."""

    sizes: tuple[int, ...]
    num_rows: int
    micro_batch: int
    activation: str
    loss: str
    launches: tuple[int, int]
    loss_options: tuple[float, ...] = ()
    dropouts: tuple[Dropout | None, ...] = ()


CASES = (
    Case((784, 128, 10), 128, 128, "relu", "cross-entropy", (7, 3)),
    Case((49, 30, 10), 50, 7, "tanh", "cross-entropy", (7, 3), (0.1,)),
    Case((49, 30, 10), 50, 7, "tanh", "cross-entropy", (9, 7), (), (None, Dropout(3, 2, 0.5))),
    Case((49, 30, 10), 30, 30, "relu", "mse", (10, 9), (), (Dropout(3, 1, 0.2), Dropout(3, 2, 0.5))),
    Case((784, 40, 10), 50, 7, "tanh", "mse", (7, 3)),
    Case((49, 20, 33, 10), 40, 40, "sigmoid", "cross-entropy", (10, 5)),
    Case((64, 150, 16), 20, 20, "relu", "mse", (7, 3)),
    Case((50, 10), 33, 8, "relu", "cross-entropy", (4, 3)),  # nothing to give on
    Case((81, 30, 17), 20, 6, "relu", "mse", (7, 5)),  # more classes than `head` takes
)
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
ORDERS = ("forward", "reverse", "random:2")


def gradients(case: Case, precision: str, fused: bool) -> tuple[bytes, bytes, int]:
    """The gradients and tails of a case, and the number of launches."""
    from ddpgd.kernels.cuda.backend import Cuda

    ops: Any = Cuda(0, precision)
    rng = np.random.default_rng(0)
    layers = dense_layers(case.sizes, case.activation, case.dropouts)
    network = Network(ops, layers, case.loss, case.num_rows, loss_options=case.loss_options)
    images = ops.from_host(rng.integers(0, 256, (NUM_IMAGES, case.sizes[0])).astype(np.uint8))
    labels = ops.from_host(rng.integers(0, case.sizes[-1], NUM_IMAGES).astype(np.uint8))
    order, words, scale = rng.permutation(NUM_IMAGES), np.zeros(CURSOR_WORDS, np.int64), np.zeros(CONTROL_WORDS)
    words[Cursor.FIRST], scale[Control.LOSS_SCALE] = 5, 4.0
    params = ops.from_host(initialise(network.layout, "he", 1))
    groups = -(-case.num_rows // case.micro_batch)
    grads = ops.zeros((groups, network.layout.size), np.float32)
    tails = ops.zeros((groups, TAIL_WORDS), np.float32)

    def work() -> None:
        network.load(images, labels, ops.from_host(order), ops.from_host(words), 3, case.num_rows)
        weights = params if rounded is None else rounded
        network.gradient(params, weights, case.num_rows, case.micro_batch, ops.from_host(scale), grads, tails)

    rounded: NDArray[Any] | None = None if precision in ("float32", "tf32") else ops.round_weights(params)
    before = ops.num_launches
    if fused:
        for _ in range(2):  # the second, with what the first has left in its scratch
            before = ops.num_launches
            with ops.fused():
                work()
    else:
        work()
    launches = ops.num_launches - before
    return ops.to_host(grads).tobytes(), ops.to_host(tails).tobytes(), launches


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_fused_ops_have_the_bits_of_single_ones(case: Case, precision: str) -> None:
    for order in ORDERS if precision == "float32" else ORDERS[:1]:
        with fake_cupy.install(order=order):
            *alone, launches = gradients(case, precision, fused=False)
            *fused, fewer = gradients(case, precision, fused=True)
        agree(fused, alone)
        assert (launches, fewer) == case.launches


def test_an_error_within_runs_nothing() -> None:
    def fail(ops: Any) -> None:
        with ops.fused():
            ops.dense_forward(*[None] * 6)
            raise KeyError

    with fake_cupy.install():
        from ddpgd.kernels.cuda.backend import Cuda

        ops: Any = Cuda(0, "float32")
        with pytest.raises(KeyError):
            fail(ops)
        assert ops.num_launches == 0
        assert ops.recorded is None


def compare(_: Device) -> None:
    for case in (CASES[6], CASES[5], CASES[4]):
        agree(gradients(case, "float32", fused=True)[:2], gradients(case, "float32", fused=False)[:2])


FAULTS = (
    Fault("the order of samples", compare, "rows.samples[row] * rows.pitch : 0", "row * rows.pitch : 0"),
    Fault("x is written", compare, "is_first ? x : nullptr", "nullptr"),
    Fault("labels", compare, "y[row] = labels[samples[row]]", "y[row] = labels[row]"),
    Fault(
        "a barrier after the logits",
        compare,
        "slopes[i] = to_value(0.0f);\n    __syncthreads();",
        "slopes[i] = to_value(0.0f);\n",
    ),
    Fault("a micro-batch's last rows", compare, "min(first_row + ROWS, begin + samples)", "first_row + ROWS"),
    Fault("the slope", compare, "multiplier.sums[i] * slope(", "multiplier.sums[i] + 0 * slope("),
    Fault("the layer of a block", compare, "while (place.x < layers[at].first_block) --at;", "at = 0;"),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_that_shows(fault, monkeypatch), "in no order"


@pytest.mark.parametrize(("hidden", "most"), [((128,), 4), ((512, 512), 6)])
def test_launches_of_a_step(hidden: tuple[int, ...], most: int) -> None:
    """A step of one micro-batch on one rank, as it is captured."""
    config = resolve(Config(data="synthetic", hidden=hidden, global_batch=128, micro_batch=128), 1)
    with fake_cupy.install(num_multiprocessors=132):
        from ddpgd.kernels.cuda.backend import Cuda

        ops: Any = Cuda(0, "float32")
        step = build.sync(ops, config, digits(), build.grid(config, Alone()), 10)
        step.run(0, 1, False, False)
        assert ops.num_launches == most
