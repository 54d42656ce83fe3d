"""One library in a process of its own: makes contestants, runs them, measures; a line of JSON in, a line of JSON out.

python -m benchmarks.gpu.worker LIBRARY SAMPLES.npz
"""

import gc
import importlib
import json
import os
import sys
from typing import Any

import numpy as np

from benchmarks.gpu import clock
from benchmarks.gpu.cases import Case

MODULES = {
    "ddpgd": "benchmarks.gpu.ours",
    "torch": "benchmarks.gpu.torch",
    "compiled": "benchmarks.gpu.torch",
    "autotuned": "benchmarks.gpu.torch",
    "jax": "benchmarks.gpu.jax",
}


class Worker:
    """Requests that a library answers; arguments and results of each method are JSON values."""

    def __init__(self, module: Any, samples: Any) -> None:
        self._module = module
        self._images, self._labels = samples["images"], samples["labels"]
        self._made: dict[str, clock.Contestant] = {}

    def facts(self) -> dict[str, Any]:
        return dict(self._module.facts())

    def make(self, key: str, case: dict[str, Any]) -> float:
        """The loss of the first step."""
        self._made[key] = self._module.make(key, *self._task(case))
        return self._made[key].first_loss

    def warm_up(self, key: str) -> int:
        return clock.warm_up(self._made[key])

    def seconds(self, key: str, steps: int) -> float:
        return clock.seconds(self._made[key], steps)

    def loss(self, key: str) -> float:
        return self._made[key].loss()

    def forget(self) -> None:
        self._made.clear()
        gc.collect()  # graphs and what they were captured from hold each other

    def work_of(self, case: dict[str, Any]) -> dict[str, Any]:
        return dict(self._module.work_of(*self._task(case), clock.seconds_of))

    def profile(self, case: dict[str, Any]) -> list[dict[str, Any]]:
        from benchmarks.gpu.profile import profile

        return profile(*self._task(case), clock.seconds_of)

    def copy_bandwidth(self, num_bytes: int) -> float:
        return float(self._module.copy_bandwidth(clock.seconds_of, num_bytes))

    def matrix_peak(self, precision: str, side: int) -> float | None:
        peak: float | None = self._module.matrix_peak(clock.seconds_of, precision, side)
        return peak

    def _task(self, case: dict[str, Any]) -> tuple[Case, np.ndarray, np.ndarray]:
        """The case, and samples for whole steps alone, equal for all."""
        made = Case(tuple(case["sizes"]), case["rows"], case["precision"])
        num_samples = len(self._labels) // made.rows * made.rows
        return made, self._images[:num_samples], self._labels[:num_samples]


def main(library: str, samples: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print; what they say is no answer
    try:
        worker = Worker(importlib.import_module(MODULES[library]), np.load(samples))
        problem = ""
    except Exception as error:  # noqa: BLE001  whatever keeps a library from loading is its answer
        problem = told(error)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"error": problem} if problem else {"value": getattr(worker, asked.pop("do"))(**asked)}
        except Exception as error:  # noqa: BLE001  a contestant that fails is a row that says so
            answer = {"error": told(error)}
        print(json.dumps(answer), file=answers, flush=True)


def told(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip("= ")]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


if __name__ == "__main__":
    main(*sys.argv[1:])
