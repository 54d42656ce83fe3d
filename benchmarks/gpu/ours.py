"""ddpgd as a contestant: `Step`, from the parts that a run has."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import cupy

from benchmarks.gpu.cases import LR, MOMENTUM, Case
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.limits import counts
from benchmarks.gpu.peaks import by_ddpgd
from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config, resolve
from ddpgd.data.mnist import Dataset
from ddpgd.kernels.cuda.cublas import open_blas
from ddpgd.kernels.cuda.device import select
from ddpgd.kernels.cuda.launcher import Launcher
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import permutation
from ddpgd.run import build
from ddpgd.run.device import Machine
from ddpgd.training.step import Step

DEVICE, ABSENCE = select(0)


def facts() -> dict[str, Any]:
    """Returns what computes. RuntimeError: there is no GPU."""
    if DEVICE is None:
        raise RuntimeError(ABSENCE)
    runtime = cupy.cuda.runtime
    return {
        "device": DEVICE.name,
        "capability": DEVICE.capability,
        "CuPy": cupy.__version__,
        "CUDA runtime": runtime.runtimeGetVersion(),
        "CUDA driver": runtime.driverGetVersion(),
        "cuBLAS by nvmath": open_blas(Launcher("float32"), "float32") is not None,
    }


def _precision(name: str) -> Literal["float32", "tf32", "float16", "bfloat16"]:
    return cast(Literal["float32", "tf32", "float16", "bfloat16"], name)


def configuration(case: Case, num_micro_batches: int, replay: Literal["graph", "persistent"] = "graph") -> Config:
    asked = Config(
        hidden=case.sizes[1:-1],
        global_batch=case.rows,
        micro_batch=case.rows // num_micro_batches,
        optimizer="momentum",
        lr=LR,
        momentum=MOMENTUM,
        schedule="constant",
        weight_decay=0.0,
        precision=_precision(case.precision),
        backend="cupy",
        replay=replay,
    )
    return resolve(asked, 1)


def make_step(ops: Ops, config: Config, images: Array, labels: Array) -> Step:
    """One rank's steps over samples on the host."""
    image_shape = (1, images.shape[1])
    data = Dataset(images, labels, images[:0], labels[:0], image_shape, "")
    step = build.sync(ops, config, data, build.grid(config, Alone()), total_steps=1)
    assert isinstance(step, Step)
    return step


def uncaptured(work: Callable[[], None], ops_alone: bool) -> Callable[[int], None]:  # noqa: ARG001
    """Stands in for `Ops.capture_loop` where no graph is wanted."""

    def loop(count: int) -> None:
        for _ in range(count):
            work()

    return loop


class Ours:
    """Steps of one rank: run as the training loop runs them, a new order for each epoch included."""

    steps_at_once = 1
    _loss_sums: Sequence[float] = (float("nan"),)

    def __init__(self, key: str, case: Case, images: Array, labels: Array) -> None:
        name, _, number = key.partition("-")
        config = configuration(case, int(number or 1), "persistent" if name == "persistent" else "graph")
        self.ops = ops = Machine(DEVICE, "").ops(config)
        self._stream = cupy.cuda.get_current_stream()
        if name == "uncaptured":
            cast(Any, ops).capture_loop = uncaptured
        if name == "apart":
            self._use_no_epilogues(case)
        self._rows = case.rows
        self._step = make_step(ops, config, images, labels)
        self._at = 0
        self.run(1)
        self.first_loss = self.loss()
        if name == "persistent":
            self._refuse_graphs()

    def _refuse_graphs(self) -> None:
        """RuntimeError: the steps are no small ones, and run as graphs, whose replays are no launches."""
        launched = cast(Any, self.ops).num_launches
        self.run(1)
        if cast(Any, self.ops).num_launches == launched:
            raise RuntimeError("not a small network, which graphs run")

    def _use_no_epilogues(self, case: Case) -> None:
        """Leaves bias and relu to own kernels. RuntimeError: cublasLt computes nothing of such a step."""
        dense = cast(Any, self.ops)._dense
        large = any(dense.uses_library(case.rows, *widths) for widths in pairwise(case.sizes))
        if not large or dense._blas._lt is None:
            raise RuntimeError("no product is large enough for cublasLt, or it does not open")
        dense._blas._lt = None

    def run(self, steps: int) -> None:
        self._stream.use()  # a contestant made later took its place: launches go where the thread's current stream is
        while steps:
            done = self._step.run(self._at, steps, False, False)
            if done.halted:
                raise ArithmeticError(f"step {self._at + done.num_steps}: the gradient is not finite")
            self._at += done.num_steps
            steps -= done.num_steps
            self._loss_sums = done.loss_sums or self._loss_sums

    def loss(self) -> float:
        return self._loss_sums[-1] / self._rows


def make(key: str, case: Case, images: Array, labels: Array) -> Ours:
    return Ours(key, case, images, labels)


def work_of(case: Case, images: Array, labels: Array, clock: Clock) -> dict[str, Any]:
    """FLOP, bytes and launches of a step, and what its part of drawing the epoch's order takes, on the host."""
    contestant = Ours("uncaptured", case, images, labels)
    launched = cast(Any, contestant.ops).num_launches
    contestant.run(1)
    launches = cast(Any, contestant.ops).num_launches - launched
    order_s = clock(lambda: permutation(0, 0, len(labels)), lambda: None)
    return {**counts(case), "launches": launches, "order_s": order_s * case.rows / len(labels)}


def copy_bandwidth(clock: Clock, num_bytes: int) -> float:
    """Bytes a second, read and written, of copies on the device."""
    source, target = cupy.zeros(num_bytes, "uint8"), cupy.zeros(num_bytes, "uint8")
    stream = cupy.cuda.Stream(non_blocking=True)

    def copy() -> None:
        cupy.cuda.runtime.memcpyAsync(
            target.data.ptr, source.data.ptr, num_bytes, cupy.cuda.runtime.memcpyDeviceToDevice, stream.ptr
        )

    return 2 * num_bytes / clock(copy, stream.synchronize)


def matrix_peak(clock: Clock, precision: str, side: int) -> float | None:
    """FLOP a second of a large product of random operands by cuBLAS; None: it is not installed."""
    found = by_ddpgd(precision, side, clock)
    rate: float = found["flop_per_s"]
    return None if found["products"] == "own kernels" else rate
