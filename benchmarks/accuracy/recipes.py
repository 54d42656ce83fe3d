"""Accuracy of configurations over several seeds, and their time, as rows of a table.

    python -m benchmarks.accuracy.recipes configs/small.toml configs/plain.toml

Each seed, 0 to --seeds - 1, is a run of one rank, and --ranks of them train side by side (`ddpgd sweep`). Then the first
--timed seeds are trained again, by all ranks together and by one alone, one after the other; these are timed, from the first
step to the last, and must give the same bits; with --timed 0, the time of one rank is that of the runs side by side. The first
line of a configuration says what it is.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from benchmarks.lib.program import Program, check_tools, make_parser, show
from benchmarks.lib.results import Spread, between, spread
from ddpgd.config.toml_file import read_toml
from ddpgd.scaling.arguments import positive
from ddpgd.scaling.conditions import commit
from ddpgd.scaling.processes import RunFailed

_PROGRAM = Program("recipes")
_SHOWN = 10
"""Accuracies that are shown one by one; of more, the median, the least and the most."""


class Recipe(NamedTuple):
    """Results of a configuration.

    Attributes:
        file: Its file.
        about: What its first line says.
        accuracies: Test accuracies by seed, 0 to 1.
        num_ranks: Number of ranks.
        together: Seconds of training of all ranks together; None: not timed.
        alone: Of one rank.
        hardware: As in summary.json.
    """

    file: Path
    about: str
    accuracies: list[float]
    num_ranks: int
    together: Spread | None
    alone: Spread
    hardware: str

    def row(self) -> str:
        """Returns the row of the table."""
        percents = [100 * accuracy for accuracy in self.accuracies]
        deviation = f"{statistics.stdev(percents):.2f}" if len(percents) > 1 else "-"
        each = (
            " ".join(f"{one:.2f}" for one in percents) if len(percents) <= _SHOWN else between(spread(percents), ".2f")
        )
        command = f"`mpirun -n {self.num_ranks} ddpgd train --config configs/{self.file.name}`"
        mean = f"{statistics.fmean(percents):.2f} %"
        times = " | ".join(map(_time, (self.together, self.alone)))
        return f"| {self.about} | {command} | {mean} | {deviation} | {each} | {times} |"


def _time(seconds: Spread | None) -> str:
    """Returns seconds as a cell of the table."""
    if seconds is None:
        return "-"
    return between(seconds, ",.2f") if seconds["n"] > 1 else f"{seconds['median']:,.1f}"


def measure(file: Path, num_seeds: int, num_timed: int, num_ranks: int, folder: Path) -> Recipe:
    """Trains a configuration with each seed, and some of them again to be timed. RunFailed: a run did, or has other bits."""
    about = file.read_text(encoding="utf-8").partition(" ddpgd train ")[0].lstrip("# ").rstrip(".")
    sweep = folder / f"{file.stem}.toml"
    sweep.write_text(
        tomli_w.dumps(read_toml(str(file)) | {"sweep": {"seed": list(range(num_seeds))}}), encoding="utf-8"
    )
    _call(num_ranks, "sweep", sweep, "--out", folder / file.stem)
    runs = [_summary(folder / file.stem / "runs" / f"seed={seed}") for seed in range(num_seeds)]
    seconds: dict[int, list[float]] = {num_ranks: [], 1: []}
    for seed, together in product(range(num_timed), seconds):
        place = folder / f"{seed} on {together}"
        _call(together, "train", "--config", file, "--seed", str(seed), "--quiet", "--run-dir", place)
        timed = _summary(place)
        if timed["params_sha256"] != runs[seed]["params_sha256"]:
            raise RunFailed(f"{file}: seed {seed} on {together} ranks has other bits than in the sweep")
        seconds[together].append(timed["train_s"])
    accuracies = [run["test_accuracy"] for run in runs]
    of_all = spread(seconds[num_ranks]) if num_timed else None
    alone = spread(seconds[1] or [run["train_s"] for run in runs])
    return Recipe(file, about, accuracies, num_ranks, of_all, alone, runs[0]["hardware"])


def _call(num_ranks: int, *words: str | Path) -> None:
    command = ["mpirun", "-n", str(num_ranks), sys.executable, "-m", "ddpgd", *map(str, words)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise RunFailed(f"{' '.join(map(str, words))} failed")


def _summary(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFailed(f"{run.name} is not complete") from None
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--seeds", type=positive(int), default=5)
    parser.add_argument("--timed", type=int, default=1)
    parser.add_argument("--ranks", type=positive(int), default=2)
    parser.add_argument("--page", type=Path, help="the page whose table is replaced (default: print it)")
    return _PROGRAM.run(lambda: _measure_all(parser.parse_args(argv)))


def _measure_all(asked: Any) -> bool:
    check_tools(None)
    found: list[Recipe] = []
    heads = ["run", "command", "mean", "sd", "each", f"s on {asked.ranks} ranks", "s on one"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for file in asked.configs:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(file, asked.seeds, min(asked.timed, asked.seeds), asked.ranks, Path(folder)))
        _PROGRAM.say(found[-1].row())
    lines += [one.row() for one in found]
    show([*lines, "", f"- commit: {commit()}", f"- hardware: {found[0].hardware}"], asked.page, "recipes")
    return True


if __name__ == "__main__":
    sys.exit(main())
