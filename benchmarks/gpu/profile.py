"""Where a step of ours goes: every op of it timed alone, many times over in one graph, its operands warm in the cache."""

from collections import defaultdict
from functools import partial

from benchmarks.gpu.cases import Case
from benchmarks.gpu.ours import DEVICE, as_it_is, configuration, make_step
from ddpgd.run.device import Machine

REPEAT = 20
MOST_STEPS = 1 << 20
"""`decide` moves the run on at each call, so that it is given learning rates for very many steps."""
OF_THE_HOST = ("empty", "zeros", "pinned", "from_host", "to_host", "upload", "download", "capture", "synchronize")


class Recorded:
    """The ops of `ops`; `calls` collects the name and arguments of each that launches something."""

    def __init__(self, ops) -> None:
        self._ops = ops
        self.calls = []

    def __getattr__(self, name: str):
        op = getattr(self._ops, name)
        if not callable(op) or name in OF_THE_HOST:
            return op

        def recorded(*arguments):
            self.calls.append((name, arguments))
            return op(*arguments)

        return recorded


def profile(case: Case, images, labels, clock) -> list[dict]:
    """Each op with its shapes, calls a step and microseconds of a call, most expensive first."""
    config = configuration(case, 1)
    ops = Machine(DEVICE, "").ops(config)
    capture, ops.capture = ops.capture, as_it_is
    recorded = Recorded(ops)
    step = make_step(recorded, config, images, labels)
    step.run(0, 1, False, False)
    recorded.calls.clear()
    step.run(1, 1, False, False)
    times_us = defaultdict(list)
    for name, arguments in recorded.calls:
        if name == "decide":
            grads, tail, _, cursor, *rest = arguments
            arguments = grads, tail, ops.zeros((MOST_STEPS,), "float64"), ops.zeros(cursor.shape, "int64"), *rest
        many = capture(partial(_times, REPEAT, partial(getattr(ops, name), *arguments)))
        times_us[name, _shapes(arguments)].append(1e6 * clock(many, ops.synchronize) / REPEAT)
    rows = [
        {"op": name, "shapes": shapes, "calls": len(times), "us": sum(times) / len(times)}
        for (name, shapes), times in times_us.items()
    ]
    return sorted(rows, key=lambda row: -row["calls"] * row["us"])


def _times(repeat: int, work) -> None:
    for _ in range(repeat):
        work()


def _shapes(arguments) -> str:
    """Those of the first arrays, which tell most."""
    return " ".join("x".join(map(str, array.shape)) for array in arguments if hasattr(array, "shape"))
