"""Layouts of ranks side by side: throughput of 784-512-512-10, interleaved, ratios within a round, and what `ddpgd plan` says.

Two ranks share memory, or are two hosts of a lab whose link is slow (tools/netlab/main.py, which wants root). What is
predicted comes from short runs over the same link, one in each round.

    python -m benchmarks.layouts.run                          7 rounds of all layouts of two ranks, and of one rank
    python -m benchmarks.layouts.run --rounds 2 --links shm   a trial without root

Exit code: 0 done, 1 a run failed, 2 wrong input.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.lib.arguments import load
from benchmarks.lib.common import SHARED_MEMORY, typed
from benchmarks.lib.results import Spread, between, ratios, spread
from ddpgd.errors import InputError
from ddpgd.run.summary import read_summary
from ddpgd.scaling.arguments import OneLineParser, positive, some_of
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, versions_text
from ddpgd.scaling.processes import ONE_THREAD, RunFailed, last_lines, run_for
from ddpgd.scaling.runs import NEVER
from tools.netlab.main import Lab, LabError

WORK = "--hidden 512,512 --global-batch 512 --micro-batch 64 --shards 4 --backend numpy"
NUM_STEPS = {SHARED_MEMORY: 120, "1gbit": 60, "100mbit": 24}
"""Of a run over each link."""
TITLES = {SHARED_MEMORY: "In shared memory", "1gbit": "Over 1 Gbit/s", "100mbit": "Over 100 Mbit/s"}


class LayoutRun(NamedTuple):
    """Ranks and flags of a run; where they are those of a row of `ddpgd plan --layouts`, its grid."""

    num_ranks: int
    flags: str
    grid: tuple[int, int, int] | None = None


ALONE = {"one rank, S = 1": LayoutRun(1, "--shards 1"), "one rank, S = 4": LayoutRun(1, "")}
REFERENCE = "data 2, sharded optimizer"
SHARING = {
    "data 2": LayoutRun(2, "--shard-optimizer off"),
    REFERENCE: LayoutRun(2, "--shard-optimizer on", (2, 1, 1)),
    "tensor 2": LayoutRun(2, "--tensor 2", (1, 1, 2)),
    "pipeline 2, 1f1b": LayoutRun(2, "--pipeline 2", (1, 2, 1)),
    "pipeline 2, gpipe": LayoutRun(2, "--pipeline 2 --pipeline-schedule gpipe"),
}
"""Layouts of two ranks, by name."""
LEADING = ("tensor 2", "pipeline 2, 1f1b")
"""Those that the conclusion names."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the command line. InputError: an argument is wrong."""
    parser = OneLineParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", metavar="N", type=positive(int), default=7, help="rounds; default: 7")
    links = some_of(tuple(NUM_STEPS))
    parser.add_argument("--links", metavar="LINKS", type=links, default=list(NUM_STEPS), help="default: all")
    parser.add_argument("--data", metavar="DIR", help="folder with MNIST (default: $DDPGD_DATA, the cache)")
    return parser.parse_args(arguments)


class Measurement:
    """Runs over one link. `lab`: its hosts, or None: ranks share memory."""

    def __init__(self, link: str, lab: Lab | None, data: str) -> None:
        self.link = link
        self.rates: dict[str, list[float]] = {}
        self.predicted: dict[str, list[float]] = {}
        self.hashes: dict[str, str] = {}
        self._lab = lab
        self._data = data
        self._layouts = SHARING if lab else ALONE | SHARING

    def round(self) -> None:
        """Runs each layout once, and lets `ddpgd plan` predict them."""
        if self._lab:
            self._lab.set_rate(self.link)
        for name, one in self._layouts.items():
            rate, self.hashes[name] = self._samples_per_s(one)
            self.rates.setdefault(name, []).append(rate)
        rows = json.loads(self._start(2, f"plan {WORK} --measure --layouts --ranks 2 --json".split()))["layouts"]["2"]
        step_s = {tuple(row["shape"][axis] for axis in ("data", "pipeline", "tensor")): row["step_s"] for row in rows}
        for name, one in SHARING.items():
            if one.grid:
                self.predicted.setdefault(name, []).append(512 / step_s[one.grid])

    def _samples_per_s(self, one: LayoutRun) -> tuple[float, str]:
        """Returns the throughput of a run by its median step, and the hash of its params."""
        with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
            folder = Path(scratch) / "run"
            words = (
                f"train {WORK} {one.flags} --steps {NUM_STEPS[self.link]} --log-every {NEVER} --evaluate-every {NEVER}"
            )
            self._start(one.num_ranks, [*words.split(), "--quiet", "--data", self._data, "--run-dir", str(folder)])
            summary = read_summary(folder)
        return 1e6 * summary["global_batch"] / (summary["step_us_median"] or float("nan")), summary["params_sha256"]

    def _start(self, num_ranks: int, words: list[str]) -> str:
        """Returns what ranks of ddpgd print. RunFailed: they fail."""
        command = [sys.executable, "-m", "ddpgd", *words]
        if self._lab:
            done = self._lab.mpirun(command, env=ONE_THREAD, capture=True)
        else:
            done = run_for(["mpirun", "-n", str(num_ranks), *command], None)
        if done.returncode:
            raise RunFailed(f"{last_lines(done)}\n{' '.join(words)}: exit code {done.returncode}")
        return done.stdout

    @property
    def page(self) -> list[str]:
        """A table. RunFailed: layouts of equal shards have other params."""
        ones = {
            shards: {self.hashes[name] for name in self.hashes if ("S = 1" in name) is shards}
            for shards in (True, False)
        }
        if any(len(found) > 1 for found in ones.values()):
            raise RunFailed(f"layouts of equal shards have other params: {self.hashes}")
        lines = [f"\n## {TITLES[self.link]}\n"]
        if ALONE.keys() <= self.rates.keys():
            s_1, s_4 = (self.rates[name] for name in ALONE)
            lines += [
                f"One rank, samples/s: S = 1 {between(spread(s_1), ',.0f')}, S = 4 {between(spread(s_4), ',.0f')}; a step of"
            ]
            lines += [f"S = 4 takes {between(ratios(s_1, s_4), '.2f')} x the time of S = 1, within a round.\n"]
        lines += [f"| layout | samples/s | over {REFERENCE} | predicted | error |", "|---|---|---|---|---|"]
        for name in SHARING:
            cells = [between(spread(self.rates[name]), ",.0f"), between(self._over(name), ".2f")]
            if name in self.predicted:
                cells += [f"{statistics.median(self.predicted[name]):,.0f}", f"{self._errors[name]:+.0%}"]
            lines.append(f"| {' | '.join([name, *cells, *[''] * (4 - len(cells))])} |")
        return lines

    @property
    def conclusion(self) -> str:
        """A sentence."""
        gains = (
            f"{name} does {self._over(name)['median']:.2f} times the work of data parallel ranks" for name in LEADING
        )
        error = statistics.median(map(abs, self._errors.values()))
        return f"{TITLES[self.link]} {' and '.join(gains)}; `ddpgd plan --layouts` is off by {error:.0%} in the median."

    def _over(self, name: str) -> Spread:
        return ratios(self.rates[name], self.rates[REFERENCE])

    @property
    def _errors(self) -> dict[str, float]:
        """Medians over rounds of how far each prediction was above what was measured in the same round."""
        return {name: ratios(own, self.rates[name])["median"] - 1 for name, own in self.predicted.items()}


def compare(asked: argparse.Namespace, arguments: list[str]) -> None:
    """Measures all layouts in turn, and prints a page. RunFailed: two layouts of equal shards have other params."""
    data = load(asked.data).source
    facts = measured_by(typed("benchmarks.layouts.run", arguments), MPI_PACKAGES)
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(hosts=2)) if set(asked.links) - {SHARED_MEMORY} else None
        found = [Measurement(link, None if link == SHARED_MEMORY else lab, data) for link in asked.links]
        for _ in range(asked.rounds):
            for one in found:
                one.round()
    print("# Layouts of two ranks, measured and predicted\n")
    print(*(one.conclusion for one in found), sep="\n", end="\n\n")
    print(
        f"- command: `{facts['command']}`, {facts['time']}; commit: {facts['commit']}; {asked.rounds} rounds, in turn"
    )
    print(f"- hardware: {facts['hardware']}; {facts['num_cores']} cores; {versions_text(facts)}")
    print(f"- all: `ddpgd train {WORK}`; medians (min to max)")
    print("\n".join(line for one in found for line in one.page))


def main(arguments: list[str]) -> int:
    """0 done, 1 a run failed, 2 wrong input."""
    try:
        compare(parse(arguments), arguments)
    except (InputError, RunFailed, LabError) as error:
        print(f"layouts: {error!s}", file=sys.stderr)
        return 2 if isinstance(error, InputError | LabError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
