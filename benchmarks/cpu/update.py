"""The update of params on one CPU core: in parts that stay in the cache, beside whole-vector passes.

    python -m benchmarks.cpu.update --out update.json

Both do the same arithmetic with the same bits; whole is the same code with parts as long as the vectors. Repetitions are
interleaved, and ratios are taken within a repetition.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib.common import typed
from ddpgd.kernels.reference import updates
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, Control
from ddpgd.optim.rules import ELEMENTWISE, Optimizer
from ddpgd.scaling.conditions import measured_by

SIZES = (101_770, 407_050, 669_706, 12_000_000)
LEAST_S = 0.02
"""Seconds that one measurement takes at least."""


def update(rule: str, size: int, part: int) -> Callable[[], None]:
    """Returns an update of vectors of that size, in parts of `part` elements, after a first one."""
    rng = np.random.default_rng(0)
    params, grads = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    control = np.zeros(CONTROL_WORDS)
    control[[Control.LR, Control.SCALE, Control.APPLY, Control.UPDATE]] = 1e-3, 1 / 256, 1, 3
    optimizer = Optimizer(Reference(), ELEMENTWISE[rule], size, 0.0005, {"momentum": 0.9})
    kept, updates.PART = updates.PART, part
    try:
        optimizer.update(params, grads, control, params)  # cuts the views
    finally:
        updates.PART = kept
    return lambda: optimizer.update(params, grads, control, params)


def seconds(work: Callable[[], None], calls: int) -> float:
    """Returns the mean time of so many calls."""
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls


def measure(rule: str, size: int, repetitions: int) -> dict[str, Any]:
    """Returns the times of both forms in microseconds, and their ratio: whole over parts."""
    forms = {"whole": update(rule, size, size), "parts": update(rule, size, updates.PART)}
    calls = max(1, round(LEAST_S / seconds(forms["whole"], 1)))
    times: dict[str, list[float]] = {name: [] for name in forms}
    for repetition in range(repetitions):
        for name in sorted(forms, reverse=repetition % 2 == 0):
            times[name].append(1e6 * seconds(forms[name], calls))
    ratios = sorted(whole / parts for whole, parts in zip(times["whole"], times["parts"], strict=True))
    return {
        "rule": rule,
        "size": size,
        **{f"{name}_us": statistics.median(values) for name, values in times.items()},
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
    }


def main() -> None:
    """Prints a table, and writes the figures with the machine's facts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", choices=ELEMENTWISE, default=["momentum", "adam"])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    print("| rule | elements | whole, us | parts, us | whole / parts (least to most) |\n|---|---|---|---|---|")
    rows = []
    for rule in asked.rules:
        for size in asked.sizes:
            row = measure(rule, size, asked.repetitions)
            rows.append(row)
            spread = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
            print(f"| {rule} | {size:,} | {row['whole_us']:.0f} | {row['parts_us']:.0f} | {spread} |", flush=True)
    if asked.out:
        facts = measured_by(typed("benchmarks.cpu.update", sys.argv[1:]), ())
        found = {"conditions": facts, "part": updates.PART, "num_repetitions": asked.repetitions, "rows": rows}
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
