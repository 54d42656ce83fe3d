"""Accuracy of configurations over several seeds, and their time, as rows of a table.

    python -m benchmarks.accuracy.recipes configs/small.toml configs/plain.toml

Each seed is a run of one rank, and --ranks of them train side by side (`ddpgd sweep`); then all ranks train seed 0 together,
which is timed, and must give the same bits. Seeds are 0 to --seeds - 1. The first line of a configuration says what it is.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from benchmarks.lib.program import Program, check_tools, make_parser, show
from ddpgd.config.toml_file import read_toml
from ddpgd.scaling.arguments import positive
from ddpgd.scaling.conditions import commit
from ddpgd.scaling.processes import RunFailed

_PROGRAM = Program("recipes")


class Recipe(NamedTuple):
    """Results of a configuration.

    Attributes:
        file: Its file.
        about: What its first line says.
        accuracies: Test accuracies by seed, 0 to 1.
        seconds: Seconds of training of all ranks together, seed 0.
        num_ranks: Number of those.
        hardware: As in summary.json.
    """

    file: Path
    about: str
    accuracies: list[float]
    seconds: float
    num_ranks: int
    hardware: str

    def row(self) -> str:
        """Returns the row of the table."""
        percents = [100 * accuracy for accuracy in self.accuracies]
        deviation = f"{statistics.stdev(percents):.2f}" if len(percents) > 1 else "-"
        each = " ".join(f"{one:.2f}" for one in percents)
        command = f"`mpirun -n {self.num_ranks} ddpgd train --config configs/{self.file.name}`"
        mean = f"{statistics.fmean(percents):.2f} %"
        return f"| {self.about} | {command} | {mean} | {deviation} | {each} | {self.seconds:,.1f} s |"


def measure(file: Path, num_seeds: int, num_ranks: int, folder: Path) -> Recipe:
    """Trains a configuration with each seed, and once on all ranks together. RunFailed: a run did, or has other bits."""
    about = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").rstrip(".")
    sweep = folder / f"{file.stem}.toml"
    sweep.write_text(
        tomli_w.dumps(read_toml(str(file)) | {"sweep": {"seed": list(range(num_seeds))}}), encoding="utf-8"
    )
    _call(num_ranks, "sweep", sweep, "--out", folder / file.stem)
    runs = {run["seed"]: run for run in json.loads((folder / file.stem / "results.json").read_text())["runs"]}
    if failed := [seed for seed, run in runs.items() if run["state"] != "complete"]:
        raise RunFailed(f"{file}: seed {failed[0]} is not complete")
    _call(num_ranks, "train", "--config", file, "--quiet", "--run-dir", folder / "timed")
    timed, alone = (_summary(folder / place) for place in ("timed", f"{file.stem}/runs/seed=0"))
    if timed["params_sha256"] != alone["params_sha256"]:
        raise RunFailed(f"{file}: {num_ranks} ranks have other bits than one")
    accuracies = [runs[seed]["test_accuracy"] for seed in range(num_seeds)]
    return Recipe(file, about, accuracies, timed["train_s"], num_ranks, timed["hardware"])


def _call(num_ranks: int, *words: str | Path) -> None:
    command = ["mpirun", "-n", str(num_ranks), sys.executable, "-m", "ddpgd", *map(str, words)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise RunFailed(f"{' '.join(map(str, words))} failed")


def _summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--seeds", type=positive(int), default=5)
    parser.add_argument("--ranks", type=positive(int), default=2)
    parser.add_argument("--page", type=Path, help="the page whose table is replaced (default: print it)")
    return _PROGRAM.run(lambda: _measure_all(parser.parse_args(argv)))


def _measure_all(asked: Any) -> bool:
    check_tools(None)
    found: list[Recipe] = []
    heads = ["run", "command", "mean", "sd", "each", f"training on {asked.ranks} ranks"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for file in asked.configs:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(file, asked.seeds, asked.ranks, Path(folder)))
        _PROGRAM.say(found[-1].row())
    lines += [one.row() for one in found]
    show([*lines, "", f"- commit: {commit()}", f"- hardware: {found[0].hardware}"], asked.page, "recipes")
    return True


if __name__ == "__main__":
    sys.exit(main())
