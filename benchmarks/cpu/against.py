"""Throughput of this checkout beside another one of ddpgd, such as an older commit: interleaved runs, ratios within pairs.

    git worktree add /tmp/old COMMIT
    python -m benchmarks.cpu.against /tmp/old                                  small, large, small-micro, large-micro
    python -m benchmarks.cpu.against /tmp/old --workloads huge --repetitions 3

Exit code: 0 done, 1 a run failed, 2 wrong input.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.cpu.pairs import in_turn, pair_lines, samples_per_s
from benchmarks.cpu.runs import ALL_WORKLOADS, WORKLOADS
from benchmarks.lib.arguments import load
from benchmarks.lib.common import ROOT, typed
from ddpgd.errors import InputError
from ddpgd.scaling.arguments import OneLineParser, positive, some_of
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, versions_text
from ddpgd.scaling.processes import RunFailed


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the command line. InputError: an argument is wrong."""
    parser = OneLineParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [work.name for work in WORKLOADS]
    known = [work.name for work in ALL_WORKLOADS]
    add = parser.add_argument
    add("other", metavar="OTHER_CHECKOUT", type=Path, help="folder of another checkout of ddpgd")
    add("--workloads", metavar="NAMES", type=some_of(known), default=usual, help=f"of {', '.join(known)}")
    add("--repetitions", metavar="N", type=positive(int), default=7, help="pairs of each workload; default: 7")
    add("--data", metavar="DIR", help="folder with MNIST (default: $DDPGD_DATA, the cache)")
    asked = parser.parse_args(arguments)
    if not (asked.other / "ddpgd" / "__main__.py").is_file():
        raise InputError(f"{asked.other} is not a checkout of ddpgd; type a folder that holds ddpgd/__main__.py")
    return asked


def compare(asked: argparse.Namespace, arguments: list[str]) -> None:
    """Measures all workloads, and prints each as soon as it is done."""
    data = load(asked.data).source
    facts = measured_by(typed("benchmarks.cpu.against", arguments), MPI_PACKAGES)
    print(f"- command: `{facts['command']}`, {facts['time']}; commit: {facts['commit']}; {asked.repetitions} pairs")
    print(f"- hardware: {facts['hardware']}; {facts['num_cores']} cores; {versions_text(facts)}", flush=True)
    for work in (work for work in ALL_WORKLOADS if work.name in asked.workloads):

        def here() -> float:
            return samples_per_s(work, data, ROOT)  # noqa: B023 - called within this iteration

        def there() -> float:
            return samples_per_s(work, data, asked.other.resolve())  # noqa: B023

        found = in_turn(here, there, asked.repetitions)
        print(f"\n**{work}**\n")
        print("\n".join(pair_lines(("this", "other"), "samples/s", ",.0f", found)), flush=True)


def main(arguments: list[str]) -> int:
    """0 done, 1 a run failed, 2 wrong input."""
    try:
        compare(parse(arguments), arguments)
    except (InputError, RunFailed) as error:
        print(f"against: {error!s}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
