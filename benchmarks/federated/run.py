"""Rounds of federated averaging to 97 % on MNIST, beside table 1 of McMahan et al., 2017: 784-200-200-10, E = 1, C = 0.1.

As there, the learning rate is the best of a multiplicative grid, and curves are made monotone before a line between two
evaluations gives the round. It is chosen with the first seed; the result is the mean over all seeds.

    python -m benchmarks.federated.run --out benchmarks/federated/federated.json                all cases, 3 seeds
    python -m benchmarks.federated.run --out trial.json --cases iid-10 --lrs 0.1 --seeds 1      one run

Each run is a command of `ddpgd train`, and is added to the file when it ends: called again, the benchmark goes on. Exit
code: 0 done, 1 a run failed, 2 wrong input.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lib.arguments import load, new_file
from benchmarks.lib.program import Program, make_parser
from ddpgd.errors import NonFiniteError
from ddpgd.run.atomic import write_atomically
from ddpgd.run.records import read_records
from ddpgd.scaling.arguments import positive, some_of
from ddpgd.scaling.processes import RunFailed, last_lines, run_for

PROGRAM = Program("federated")

TARGET = 0.97
WORK = (
    "--hidden 200,200 --sync federated --clients 100 --client-fraction 0.1 --local-epochs 1 --optimizer sgd --weight-decay 0 "
    f"--schedule constant --until-accuracy {TARGET} --backend numpy --quiet"
)
LRS = (0.0215, 0.0464, 0.1, 0.215, 0.464, 1.0)
"""A grid whose factor is the third root of 10, as in the paper."""


class Case(NamedTuple):
    """A row of the table: the division of samples, a client's batch, the published rounds, and rounds between evaluations."""

    partition: str
    client_batch: str
    published: int
    evaluate_every: int


CASES = {
    "iid-10": Case("iid", "10", 87, 1),
    "shards-10": Case("shards:2", "10", 664, 4),
    "iid-all": Case("iid", "all", 1474, 10),
    "shards-all": Case("shards:2", "all", 1796, 10),
}


def rounds_to_target(points: Iterable[tuple[int, float]], target: float) -> float | None:
    """Returns where the running maximum of (round, accuracy), joined by lines, reaches the target; None: nowhere."""
    before = (0, 0.0)
    for number, accuracy in points:
        if accuracy >= target:
            return before[0] + (number - before[0]) * (target - before[1]) / (accuracy - before[1])
        before = number, max(before[1], accuracy)
    return None


class Runs:
    """Runs and their results, in a file that a later call goes on with."""

    def __init__(self, path: Path, data: str | None, factor: float, ranks: int) -> None:
        """`factor`: most rounds of a run, over those published. `ranks`: of each run."""
        self._path = path
        self._data = ["--data", data] if data else []
        self._factor = factor
        self._ranks = ranks
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def rounds(self, name: str, lr: float, seed: int) -> float | None:
        """Returns the rounds of a run to the target, from the file or from a run now; None: it was not reached."""
        key = f"{name} lr {lr:g} seed {seed}"
        if key not in self.found:
            self.found[key] = self._run(CASES[name], lr, seed)
            self.save()
        rounds: float | None = self.found[key]["rounds"]
        return rounds

    def save(self) -> None:
        write_atomically(self._path, [f"{json.dumps(self.found, indent=2)}\n".encode()])

    def _run(self, case: Case, lr: float, seed: int) -> dict[str, Any]:
        command = (
            f"ddpgd train {WORK} --partition {case.partition} --client-batch {case.client_batch} "
            f"--evaluate-every {case.evaluate_every} --rounds {round(self._factor * case.published)} --lr {lr:g} --seed {seed}"
        )
        words = [sys.executable, "-Pm", *shlex.split(command), *self._data]
        if self._ranks > 1:
            words += ["--transport", "threads", "--ranks", str(self._ranks)]
        PROGRAM.say(command)
        with tempfile.TemporaryDirectory() as folder:
            done = run_for([*words, "--run-dir", f"{folder}/run"], None)
            if done.returncode == NonFiniteError.exit_code:
                return {"command": command, "rounds": None}
            if done.returncode != 0:
                raise RunFailed(f"{command}: {last_lines(done)}")
            records = [one for one in read_records(Path(folder, "run")) if one.get("test_accuracy") is not None]
            summary = json.loads(Path(folder, "run", "summary.json").read_text())
        reached = rounds_to_target([(one["step"], one["test_accuracy"]) for one in records], TARGET)
        told = {name: summary[name] for name in ("steps", "train_s", "test_accuracy", "client_bytes", "hardware")}
        return {"command": command, "rounds": reached, **told}


def measure(runs: Runs, name: str, lrs: Iterable[float], num_seeds: int) -> dict[str, Any]:
    """Returns the chosen learning rate of a case, the rounds of each seed, and their mean; "rounds" is empty: none reached."""
    first = {lr: rounds for lr in lrs if (rounds := runs.rounds(name, lr, 0)) is not None}
    if not first:
        return {"published": CASES[name].published, "rounds": []}
    lr = min(first, key=lambda one: first[one])
    reached = [one for seed in range(num_seeds) if (one := runs.rounds(name, lr, seed)) is not None]
    mean = statistics.fmean(reached)
    return {
        "published": CASES[name].published,
        "lr": lr,
        "rounds": reached,
        "mean": mean,
        "over_published": mean / CASES[name].published,
    }


def main() -> int:
    """Runs what is missing, and prints a line for each case."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=new_file, required=True, help="results, as JSON; those that are there are kept")
    parser.add_argument("--cases", type=some_of(list(CASES)), default=list(CASES), help=f"of {','.join(CASES)}")
    parser.add_argument("--lrs", type=_rates, default=list(LRS), help="the grid, as in 0.1,0.215")
    parser.add_argument("--seeds", type=positive(int), default=3, help="number of seeds")
    parser.add_argument("--most", type=positive(float), default=1.5, help="most rounds of a run, over those published")
    parser.add_argument("--ranks", type=positive(int), default=1, help="ranks of a run, as threads")
    parser.add_argument("--data", help="folder of MNIST")
    return PROGRAM.run(lambda: _run(parser.parse_args()))


def _run(asked: argparse.Namespace) -> bool:
    load(asked.data)
    runs = Runs(asked.out, asked.data, asked.most, asked.ranks)
    for name in asked.cases:
        found = measure(runs, name, asked.lrs, asked.seeds)
        runs.found[name] = found
        runs.save()
        print(f"{name}: {json.dumps(found)}", flush=True)
    return True


def _rates(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
