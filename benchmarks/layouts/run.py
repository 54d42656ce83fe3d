"""Layouts of ranks side by side on one machine: throughput of 784-512-512-10, interleaved, ratios within a round.

    python -m benchmarks.layouts.run                          7 rounds of all layouts of two ranks, and of one rank
    python -m benchmarks.layouts.run --rounds 2               a trial

Exit code: 0 done, 1 a run failed, 2 wrong input.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.lib.arguments import load
from benchmarks.lib.common import typed
from benchmarks.lib.results import between, ratios, spread
from ddpgd.errors import InputError
from ddpgd.run.summary import read_summary
from ddpgd.scaling.arguments import OneLineParser, positive
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, versions_text
from ddpgd.scaling.processes import RunFailed, run

GIVEN = "--hidden 512,512 --global-batch 512 --micro-batch 64 --steps 120 --quiet --backend numpy --log-every 1000000"
LAYOUTS: dict[str, tuple[int, str]] = {
    "one rank, S = 1": (1, "--shards 1"),
    "one rank, S = 4": (1, "--shards 4"),
    "data 2": (2, "--shards 4 --shard-optimizer off"),
    "data 2, sharded optimizer": (2, "--shards 4 --shard-optimizer on"),
    "tensor 2": (2, "--shards 4 --tensor 2"),
    "pipeline 2, 1f1b": (2, "--shards 4 --pipeline 2"),
    "pipeline 2, gpipe": (2, "--shards 4 --pipeline 2 --pipeline-schedule gpipe"),
}
"""Ranks and flags of each, by name."""
PAIRS = (
    ("one rank, S = 1", "one rank, S = 4"),
    ("data 2, sharded optimizer", "data 2"),
    *((name, "data 2, sharded optimizer") for name in ("tensor 2", "pipeline 2, 1f1b", "pipeline 2, gpipe")),
)
"""Whose samples/s are divided by whose."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the command line. InputError: an argument is wrong."""
    parser = OneLineParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", metavar="N", type=positive(int), default=7, help="rounds; default: 7")
    parser.add_argument("--data", metavar="DIR", help="folder with MNIST (default: $DDPGD_DATA, the cache)")
    return parser.parse_args(arguments)


def samples_per_s(name: str, data: str) -> tuple[float, str]:
    """Returns the throughput of a run by its median step, and the hash of its params."""
    num_ranks, flags = LAYOUTS[name]
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        words = [*GIVEN.split(), *flags.split(), "--data", data, "--run-dir", str(folder)]
        run(["mpirun", "-n", str(num_ranks), sys.executable, "-m", "ddpgd", "train", *words])
        summary = read_summary(folder)
    return 1e6 * summary["global_batch"] / (summary["step_us_median"] or float("nan")), summary["params_sha256"]


def compare(asked: argparse.Namespace, arguments: list[str]) -> None:
    """Measures all layouts in turn, and prints tables. RunFailed: two layouts of equal shards have other params."""
    data = load(asked.data).source
    facts = measured_by(typed("benchmarks.layouts.run", arguments), MPI_PACKAGES)
    print(
        f"- command: `{facts['command']}`, {facts['time']}; commit: {facts['commit']}; {asked.rounds} rounds, in turn"
    )
    print(f"- hardware: {facts['hardware']}; {facts['num_cores']} cores; {versions_text(facts)}")
    print(f"- all: `ddpgd train {GIVEN}`; medians (min to max)\n", flush=True)
    found: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    hashes: dict[str, str] = {}
    for _ in range(asked.rounds):
        for name in LAYOUTS:
            rate, hashes[name] = samples_per_s(name, data)
            found[name].append(rate)
    if len(set(hashes.values())) > 2:
        raise RunFailed(f"layouts of four shards have other params: {hashes}")
    print("| layout | samples/s |\n|---|---|")
    for name, rates in found.items():
        print(f"| {name} | {between(spread(rates), ',.0f')} |")
    print("\n| | over | ratio within a round |\n|---|---|---|")
    for name, other in PAIRS:
        print(f"| {name} | {other} | {between(ratios(found[name], found[other]), '.2f')} |")


def main(arguments: list[str]) -> int:
    """0 done, 1 a run failed, 2 wrong input."""
    try:
        compare(parse(arguments), arguments)
    except (InputError, RunFailed) as error:
        print(f"layouts: {error!s}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
