"""`ddpgd profile`: the time and the FLOP of each op of a step on one rank, beside the machine's rate of matrix products."""

import json
import statistics
import time
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_limits

from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config, global_batch, resolve
from ddpgd.config.validation import validate
from ddpgd.data.augmentations import AUGMENT_OPTIONS
from ddpgd.data.mnist import Dataset
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run import build, build_network
from ddpgd.scaling import gemm
from ddpgd.scaling.arguments import positive

WARM_UP_STEPS = 20
NUM_STEPS = 200
LEAST_SAMPLES = 4096
IMAGE_SHAPE = (28, 28)
LEAST_SHARE = 0.0005
"""Ops that take less of a step are shown as one row."""
SIDE = 1024
"""Rows and columns of the product whose rate stands for the machine."""

NUM_SAMPLES = 60_000
"""Training samples of MNIST, which `--global-batch all` means."""

WORK_OPTIONS = ("hidden", "activation", "loss", "global_batch", "micro_batch", "accumulate", "optimizer", "lr", "momentum",
                "weight_decay", "clip_norm", "clip_value", "max_norm", "label_smoothing", "dropout", "input_dropout",
                "input_pool", *AUGMENT_OPTIONS)  # fmt: skip
"""Options of `train` that `profile` has as well."""

_PRODUCTS = {
    "dense_forward": "forward",
    "dense_backward_params": "backward params",
    "dense_backward_input": "backward input",
}


@dataclass(frozen=True)
class OpTime:
    """An op with arguments of one shape.

    Attributes:
        name: The op and its shape; of products, rows x K x N.
        calls: Calls a step.
        us: Microseconds a step, from the median call.
        share: Part of the step's time.
        mflop: Millions of floating-point operations a step; 0 for ops without a matrix product.
        product_us: Microseconds that its matrix products take alone; 0 where it has none.
    """

    name: str
    calls: float
    us: float
    share: float
    mflop: float
    product_us: float


@dataclass(frozen=True)
class Profile:
    """A step on one rank with one BLAS thread; `gemm_gflop_per_s` is the rate of a product of SIDE x SIDE matrices."""

    network: str
    samples: int
    micro_batch: int
    num_steps: int
    step_us: float
    between_us: float
    gemm_gflop_per_s: float
    ops: list[OpTime]

    @property
    def mflop(self) -> float:
        """Millions of floating-point operations in the matrix products of a step."""
        return sum(op.mflop for op in self.ops)

    @property
    def gflop_per_s(self) -> float:
        """GFLOP/s of the whole step."""
        return 1e3 * self.mflop / self.step_us


class Timed:
    """The ops of a backend; `calls` collects name, arguments and seconds of each call."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self.calls: list[tuple[str, tuple[Any, ...], float]] = []

    def __getattr__(self, name: str) -> Any:
        op = getattr(self._ops, name)
        if not callable(op):
            return op

        @wraps(op)
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = op(*arguments, **named)
            self.calls.append((name, arguments, time.perf_counter() - started))
            return result

        setattr(self, name, timed)
        return timed


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd profile` that `train` does not have."""
    parser.add_argument("--steps", metavar="N", type=positive(int), default=NUM_STEPS, help="steps that are timed")
    parser.add_argument("--json", action="store_true", default=None, help="print JSON")


def profile(config: Config, num_steps: int = NUM_STEPS) -> Profile:
    """Times the ops of a step on the CPU, on one rank and with one BLAS thread; medians over `num_steps`.

    Args:
        config: The configuration of the step; only every-step training is profiled.
        num_steps: Steps that are timed, after WARM_UP_STEPS others.

    Raises:
        InputError: the configuration is not valid.
    """
    config = resolve(config, 1, NUM_SAMPLES)
    validate(config)
    data = _samples(config)
    weights = [
        tensor.shape for tensor in build_network.layout(config, data.image_shape).tensors if len(tensor.shape) == 2
    ]
    sizes = (*(shape[0] for shape in weights), weights[-1][1])
    times_s: dict[tuple[str, str], list[float]] = defaultdict(list)
    steps_s, between_s = [], []
    with threadpool_limits(1, user_api="blas"):
        ops = Timed(Reference())
        step = build.sync(cast(Ops, ops), config, data, build.grid(config, Alone()), WARM_UP_STEPS + num_steps)
        for number in range(WARM_UP_STEPS + num_steps):
            ops.calls.clear()
            step_s = step.run(number, 1, False, False).step_s
            if number >= WARM_UP_STEPS:
                steps_s.append(step_s)
                between_s.append(step_s - sum(taken for _, _, taken in ops.calls))
                for name, arguments, taken in ops.calls:
                    times_s[name, _shape(name, arguments)].append(taken)
        alone_s = {name: gemm.seconds(left, right) for name, left, right in gemm.products(sizes, config.micro_batch)}
        rate = gemm.best_flop_per_s(SIDE) / 1e9
    step_us = 1e6 * statistics.median(steps_s)
    rows = [_op_time(*key, taken, num_steps, step_us, alone_s) for key, taken in times_s.items()]
    return Profile(
        network="-".join(map(str, sizes)),
        samples=global_batch(config),
        micro_batch=config.micro_batch,
        num_steps=num_steps,
        step_us=step_us,
        between_us=1e6 * statistics.median(between_s),
        gemm_gflop_per_s=rate,
        ops=sorted(rows, key=lambda op: -op.us),
    )


def _samples(config: Config) -> Dataset:
    """Returns random samples for whole steps alone; the time of a step does not depend on pixels."""
    batch = global_batch(config)
    num = batch * max(1, LEAST_SAMPLES // batch)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (num, IMAGE_SHAPE[0] * IMAGE_SHAPE[1]), np.uint8)
    labels = random.integers(0, 10, num, np.uint8)
    return Dataset(images, labels, images[:1], labels[:1], IMAGE_SHAPE, "random pixels")


def _op_time(
    name: str, shape: str, times_s: Sequence[float], num_steps: int, step_us: float, alone_s: Mapping[str, float]
) -> OpTime:
    calls = len(times_s) / num_steps
    us = 1e6 * calls * statistics.median(times_s)
    mflop = 2e-6 * calls * float(np.prod([int(side) for side in shape.split("x")])) if name in _PRODUCTS else 0.0
    product_us = 1e6 * calls * alone_s.get(f"{_PRODUCTS.get(name)} {shape}", 0.0)
    return OpTime(f"{name} {shape}".strip(), calls, us, us / step_us, mflop, product_us)


def _shape(name: str, arguments: tuple[Any, ...]) -> str:
    """Returns rows x K x N of a product, as `gemm.products` writes it; else the main array's shape, after an update's rule."""
    shapes = [argument.shape for argument in arguments if isinstance(argument, np.ndarray)]
    if name in _PRODUCTS:
        (rows, first), (_, last) = shapes[:2]
        product = (first, rows, last) if name == "dense_backward_params" else (rows, first, last)
        return "x".join(map(str, product))
    which = {"gather_normalise": 3}.get(name, 0)
    shape = "x".join(map(str, shapes[which])) if which < len(shapes) else ""
    return f"{arguments[0]} {shape}" if name == "update" else shape


def lines(found: Profile, as_json: bool = False) -> list[str]:
    """Returns a conclusion and a table in Markdown; or JSON."""
    if as_json:
        return [json.dumps(asdict(found) | {"mflop": found.mflop, "gflop_per_s": found.gflop_per_s}, indent=1)]
    products = [op for op in found.ops if op.mflop]
    alone_us = sum(op.product_us for op in products)
    text = [
        f"{found.network}, {found.samples} samples a step in micro-batches of {found.micro_batch}, one rank, one BLAS thread; "
        f"medians of {found.num_steps} steps",
        "",
        f"A step takes {found.step_us:,.0f} us and computes {found.mflop:,.1f} MFLOP in matrix products: "
        f"{found.gflop_per_s:.1f} GFLOP/s, {found.gflop_per_s / found.gemm_gflop_per_s:.0%} of this machine's "
        f"{found.gemm_gflop_per_s:.1f} GFLOP/s in a {SIDE} x {SIDE} product. Its products alone would take {alone_us:,.0f} us, "
        f"{alone_us / found.step_us:.0%} of the step.",
        "",
        "| op | calls a step | us a step | share | MFLOP | GFLOP/s | of the machine's | its product alone, us |",
        "|---|---|---|---|---|---|---|---|",
    ]
    shown = [op for op in found.ops if op.share >= LEAST_SHARE]
    text += [_row(op, found.gemm_gflop_per_s) for op in shown]
    others_us = sum(op.us for op in found.ops if op not in shown)
    text.append(f"| other ops | | {others_us:,.0f} | {others_us / found.step_us:.1%} | | | | |")
    text.append(f"| between the ops | | {found.between_us:,.0f} | {found.between_us / found.step_us:.1%} | | | | |")
    text.append(
        f"| **step** | | **{found.step_us:,.0f}** | | **{found.mflop:,.1f}** | **{found.gflop_per_s:.1f}** "
        f"| **{found.gflop_per_s / found.gemm_gflop_per_s:.0%}** | **{alone_us:,.0f}** |"
    )
    return text


def _row(op: OpTime, machine: float) -> str:
    cells = [op.name, f"{op.calls:g}", f"{op.us:,.0f}", f"{op.share:.1%}"]
    if op.mflop:
        rate = 1e3 * op.mflop / op.us
        cells += [f"{op.mflop:,.1f}", f"{rate:.1f}", f"{rate / machine:.0%}", f"{op.product_us:,.0f}"]
    return f"| {' | '.join(cells + [''] * (8 - len(cells)))} |"
