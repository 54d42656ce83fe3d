"""Time of a training step on a GPU, beside PyTorch and JAX, most important cases first, within a budget of seconds.

Each library runs in a process of its own; in each repetition all contestants take turns, and ratios are taken within it.

    python -m benchmarks.gpu.run                 gpu.json and gpu-table.md, in about 4 minutes
    python -m benchmarks.gpu.run --seconds 3000 --out DIR            all cases
    python -m benchmarks.gpu.run --networks 784-128-10 --rows 128 --precisions float32,tf32 --parts steps,profile
    python -m benchmarks.gpu.run --python jax=/opt/jax/bin/python    a library that lives in another environment

Exit code 2: no GPU, or wrong usage.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.cases import CASES, LIBRARIES, NETWORKS, PRECISIONS, ROWS, Case, chosen, ordered
from benchmarks.gpu.epoch import measure as measure_epochs
from benchmarks.gpu.facts import conditions, libraries
from benchmarks.gpu.limits import limits
from benchmarks.gpu.report import report
from benchmarks.gpu.runs import Lost, Process, measure, processes
from benchmarks.gpu.targets import verdict
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone
from ddpgd.errors import InputError
from ddpgd.run.loading import load_data
from ddpgd.scaling.arguments import positive

PARTS = ("steps", "profile", "epoch")
NUM_PROFILES = 4
LEAST_MAKE_S, MOST_MAKE_S = 30.0, 90.0
COPY_BYTES, MATRIX_SIDE = 1 << 30, 8192


class Bench:
    """A measurement; results are written after each case, so that an interruption costs one case."""

    def __init__(self, asked: argparse.Namespace, workers: dict[str, Process], found: dict[str, Any]) -> None:
        self._asked = asked
        self._workers = workers
        self._deadline = time.monotonic() + asked.seconds
        self.found = found | {"cases": [], "profiles": [], "not_reached": [], "epoch": None, "problems": []}

    def run(self, cases: list[Case]) -> None:
        parts = self._asked.parts
        if "steps" in parts:
            self.found["peaks"] = self._peaks(list(dict.fromkeys(case.precision for case in cases)))
            self._case(cases[0])
        if "epoch" in parts:
            say("epochs of ddpgd train")
            self.found["epoch"] = self._tried(lambda: measure_epochs(self._data_flags()))
            self._write()
        for case in cases[:NUM_PROFILES] if "profile" in parts else ():
            if self._left_s() > 0:
                self._profile(case)
        for case in cases[1:] if "steps" in parts else ():
            if self._left_s() > 0:
                self._case(case)
            else:
                self.found["not_reached"].append(str(case))
        self._write()

    def _case(self, case: Case) -> None:
        say(f"{case}; {self._left_s():.0f} s left")
        measured = measure(
            case, self._workers, self._asked.repetitions, min(MOST_MAKE_S, max(LEAST_MAKE_S, self._left_s()))
        )
        work = self._tried(lambda: self._workers["ddpgd"].ask("work_of", case=asdict(case)))
        if work:
            peaks = self.found["peaks"]
            measured |= {"work": work, "limits_s": limits(work, peaks["flop_per_s"].get(case.precision), peaks["copy"])}
        self.found["cases"].append(measured)
        self._write()

    def _profile(self, case: Case) -> None:
        say(f"{case}: op by op")
        ops = self._tried(lambda: self._workers["ddpgd"].ask("profile", case=asdict(case)))
        if ops:
            self.found["profiles"].append({"name": str(case), "ops": ops})

    def _peaks(self, precisions: list[str]) -> dict[str, Any]:
        """Returns the machine's best: FLOP a second of a large product, bytes a second of a large copy."""
        side, num_bytes = (MATRIX_SIDE, COPY_BYTES) if not self._asked.trial else (64, 1 << 16)
        by = next(library for library in ("torch", "ddpgd") if library in self._workers)
        flop = {
            precision: self._tried(partial(self._workers[by].ask, "matrix_peak", precision=precision, side=side))
            for precision in precisions
        }
        copy = self._tried(lambda: self._workers["ddpgd"].ask("copy_bandwidth", num_bytes=num_bytes))
        return {"flop_per_s": flop, "flop_by": by, "copy": copy, "side": side, "copy_bytes": num_bytes}

    def _tried(self, asked: Callable[[], Any]) -> Any:
        """Returns what `asked` gives; None, and a line among the problems, if it fails."""
        try:
            return asked()
        except Lost as lost:
            self.found["problems"].append(str(lost))
            say(str(lost))
            return None

    def _left_s(self) -> float:
        return float(self._deadline - time.monotonic())

    def _data_flags(self) -> list[str]:
        return ["--data", self._asked.data] if self._asked.data else []

    def _write(self) -> None:
        folder = self._asked.out
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        (folder / "gpu-table.md").write_text("\n".join(report(self.found)), encoding="utf-8")


def bench(asked: argparse.Namespace, arguments: list[str]) -> int:
    data = load_data(asked.data, Alone(), Launch("", 0, 1, 0), say)
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        samples = Path(scratch) / "samples.npz"
        np.savez(samples, images=data.train_images, labels=data.train_labels)
        workers = processes(asked.libraries, dict(asked.python), samples)
        try:
            present, absent = libraries(workers, asked.trial)
            if "ddpgd" in absent:
                raise InputError(f"ddpgd computes on no GPU here: {absent['ddpgd']}")
            for library, reason in absent.items():
                say(f"{library} takes no part: {reason}")
                workers.pop(library).stop()
            facts = conditions(arguments, asked.repetitions)
            name = "synthetic digits" if asked.data == "synthetic" else f"{len(data.train_labels):,} samples"
            found = facts | {
                "data": f"{name}, sha256 {data.sha256[:12]}",
                "seconds": asked.seconds,
                "libraries": present,
                "absent": absent,
            }
            running = Bench(asked, workers, found)
            running.run(chosen(ordered(asked.networks, asked.rows, asked.precisions), asked.cases))
        finally:
            for worker in workers.values():
                worker.stop()
    print(f"{asked.out / 'gpu.json'} and gpu-table.md are written: {verdict(running.found)}")
    return 0


def listed(convert: Callable[[str], Any], known: Sequence[Any] = ()) -> Callable[[str], list[Any]]:
    """Returns a converter of a comma-separated list."""

    def parse_list(text: str) -> list[Any]:
        values = [convert(part) for part in text.split(",")]
        for value in values:
            if known and value not in known:
                raise argparse.ArgumentTypeError(f"{value!r} is none of {', '.join(map(str, known))}")
        return values

    return parse_list


def network(text: str) -> tuple[int, ...]:
    return tuple(positive(int)(width) for width in text.split("-"))


def named_python(text: str) -> tuple[str, str]:
    library, _, path = text.partition("=")
    if library not in LIBRARIES or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not LIBRARY=PATH with one of {', '.join(LIBRARIES)}")
    return library, path


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", metavar="DIR", type=Path, default=Path("benchmarks/gpu"), help="default: benchmarks/gpu")
    add("--seconds", metavar="S", type=positive(float), default=240.0, help="no case begins after; default: 240")
    add("--repetitions", metavar="N", type=positive(int), default=5, help="default: 5")
    add("--networks", metavar="A-B-C,...", type=listed(network), default=list(NETWORKS))
    add("--rows", metavar="N,...", type=listed(positive(int)), default=list(ROWS))
    add("--precisions", metavar="NAMES", type=listed(str, PRECISIONS), default=list(PRECISIONS))
    add("--cases", choices=CASES, default="all", help="default: all")
    add("--libraries", metavar="NAMES", type=listed(str, tuple(LIBRARIES)), default=list(LIBRARIES))
    add("--parts", metavar="NAMES", type=listed(str, PARTS), default=list(PARTS), help=f"default: {','.join(PARTS)}")
    add("--python", metavar="LIBRARY=PATH", type=named_python, action="append", default=[])
    add("--data", metavar="DIR", help="folder with MNIST, or synthetic (default: $DDPGD_DATA, the cache)")
    add("--trial", action="store_true", help="of this program: peaks of tiny arrays, and others may compute on a CPU")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    print(f"bench_gpu: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    asked = parse(arguments)
    try:
        return bench(asked, arguments)
    except InputError as error:
        say(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
