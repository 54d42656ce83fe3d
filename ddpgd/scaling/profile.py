"""Where a step of ddpgd goes on one rank, without MPI: every op timed (medians), its matrix product beside it."""

import statistics
import time
from collections import defaultdict
from functools import wraps

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.lib.gemm_limit import products, seconds
from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run import build

WARM_UP_STEPS = 20
NUM_STEPS = 200


class Timed:
    """The ops of `ops`; `calls` collects (name, arguments, seconds) of each call."""

    def __init__(self, ops):
        self._ops = ops
        self.calls = []

    def __getattr__(self, name):
        op = getattr(self._ops, name)
        if not callable(op):
            return op

        @wraps(op)
        def timed(*arguments):
            started = time.perf_counter()
            result = op(*arguments)
            self.calls.append((name, arguments, time.perf_counter() - started))
            return result

        setattr(self, name, timed)
        return timed


def profile(data, sizes, global_batch, micro_batch):
    """Markdown lines: each op of a step with its calls, times and share."""
    times_s, steps_s, rests_s = defaultdict(list), [], []
    with threadpool_limits(1, user_api="blas"):
        ops = Timed(Reference())
        step = _step(ops, data, sizes, global_batch, micro_batch)
        for number in range(WARM_UP_STEPS + NUM_STEPS):
            ops.calls.clear()
            step_s = step.run(number, 1, False, False).step_s
            if number >= WARM_UP_STEPS:
                steps_s.append(step_s)
                rests_s.append(step_s - sum(taken for _, _, taken in ops.calls))
                for name, arguments, taken in ops.calls:
                    times_s[name, _shapes(name, arguments)].append(taken)
        gemm_s = {name: seconds("numpy", left, right) for name, left, right in products(sizes, micro_batch)}
    return _table(times_s, statistics.median(steps_s), statistics.median(rests_s), gemm_s)


def _step(ops, data, sizes, global_batch, micro_batch):
    config = Config(
        hidden=sizes[1:-1],
        global_batch=global_batch,
        micro_batch=micro_batch,
        optimizer="sgd",
        weight_decay=0.0,
        schedule="constant",
    )
    return build.sync(ops, config, data, Alone(), NUM_STEPS)


def _table(times_s, step_s, rest_s, gemm_s):
    lines = ["| op | calls a step | us a step | share | its product alone, us |", "|---|---|---|---|---|"]
    rows = [
        (f"{name} {shapes}", len(times) / NUM_STEPS, statistics.median(times), name, shapes)
        for (name, shapes), times in times_s.items()
    ]
    gemm_us = 0.0
    for label, calls, call_s, name, shapes in sorted(rows, key=lambda row: -row[1] * row[2]):
        product_us = 1e6 * calls * gemm_s.get(f"{_PRODUCTS.get(name)} {shapes}", 0.0)
        gemm_us += product_us
        shown = f"{product_us:.0f}" if product_us else "-"
        lines.append(f"| {label} | {calls:g} | {1e6 * calls * call_s:.0f} | {calls * call_s / step_s:.1%} | {shown} |")
    lines.append(f"| between the ops | | {1e6 * rest_s:.0f} | {rest_s / step_s:.1%} | - |")
    return [*lines, f"| **step** | | **{1e6 * step_s:.0f}** | | **{gemm_us:.0f}** |"]


_PRODUCTS = {
    "dense_forward": "forward",
    "dense_backward_params": "backward params",
    "dense_backward_input": "backward input",
}


def _shapes(name, arguments):
    """As `gemm_limit.products` names them, for products; else the last array's shape."""
    shapes = [argument.shape for argument in arguments if isinstance(argument, np.ndarray)]
    if name == "dense_forward":
        (rows, k), (_, n) = shapes[:2]
        return f"{rows}x{k}x{n}"
    if name == "dense_backward_params":
        (rows, k), (_, n) = shapes[:2]
        return f"{k}x{rows}x{n}"
    if name == "dense_backward_input":
        (rows, n), (k, _) = shapes[:2]
        return f"{rows}x{n}x{k}"
    which = {"gather_normalise": 3}.get(name, 0)
    return "x".join(map(str, shapes[which])) if shapes else ""


def title(sizes, global_batch, micro_batch):
    """The line above a profile."""
    network = "-".join(map(str, sizes))
    return f"{network}, {global_batch} rows a step in micro-batches of {micro_batch}, one rank"
