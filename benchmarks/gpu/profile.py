"""The ops of a step of ddpgd, each timed alone: many times over in one graph, with operands in the cache."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from benchmarks.gpu.cases import Case
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.ours import DEVICE, configuration, make_step, uncaptured
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.run.device import Machine

REPEAT = 20
MOST_STEPS = 1 << 20
"""`decide` moves the run on at each call, so that it is given learning rates for very many steps."""
OF_THE_HOST = (
    "empty",
    "zeros",
    "pinned",
    "from_host",
    "to_host",
    "upload",
    "download",
    "capture",
    "capture_loop",
    "synchronize",
)


class Recorded:
    """The ops of `ops`; `calls` collects the name and arguments of each that launches something."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        op = getattr(self._ops, name)
        if not callable(op) or name in OF_THE_HOST:
            return op

        def recorded(*arguments: Any) -> Any:
            self.calls.append((name, arguments))
            return op(*arguments)

        return recorded


def profile(case: Case, images: Array, labels: Array, clock: Clock) -> list[dict[str, Any]]:
    """Each op with its shapes, calls a step and microseconds of a call, most expensive first."""
    config = configuration(case, 1)
    ops = Machine(DEVICE, "").ops(config)
    cast(Any, ops).capture_loop = uncaptured
    recorded = Recorded(ops)
    step = make_step(cast(Ops, recorded), config, images, labels)
    step.run(0, 1, False, False)
    recorded.calls.clear()
    step.run(1, 1, False, False)
    times_us: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name, arguments in recorded.calls:
        if name == "decide":
            grads, tail, _, cursor, *rest = arguments
            arguments = grads, tail, ops.zeros((MOST_STEPS,), "float64"), ops.zeros(cursor.shape, "int64"), *rest
        many = ops.capture(partial(_times, REPEAT, partial(getattr(ops, name), *arguments)))
        label = f"update {arguments[0]}" if name == "update" else name
        times_us[label, _shapes(arguments)].append(1e6 * clock(many, ops.synchronize) / REPEAT)
    rows = [
        {"op": name, "shapes": shapes, "calls": len(times), "us": sum(times) / len(times)}
        for (name, shapes), times in times_us.items()
    ]
    return sorted(rows, key=lambda row: -row["calls"] * row["us"])


def _times(repeat: int, work: Callable[[], object]) -> None:
    for _ in range(repeat):
        work()


def _shapes(arguments: tuple[Any, ...]) -> str:
    """Returns the shapes of all arrays."""
    return " ".join("x".join(map(str, array.shape)) for array in arguments if hasattr(array, "shape"))
