"""Training steps of two hosts over a slow link: ddpgd and PyTorch DDP, with float32 and with float16 gradients.

Each contestant runs on the hosts of a lab (tools/netlab/main.py, which wants root). A time is that of the second half of
its steps: start, set-up and evaluation are left out. Contestants take turns.

    python -m benchmarks.exchange.steps --out steps.json                       100 Mbit/s, 5 repetitions, some 8 minutes
    python -m benchmarks.exchange.steps --rate 1gbit --networks 784-512-512-10 --repetitions 1
"""

import argparse
import json
import math
import shlex
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

from benchmarks.lib.arguments import load, new_file
from benchmarks.lib.common import LAB_LINKS, LR, NUM_RANKS, PEERS, shown, typed
from benchmarks.lib.program import Program, make_parser, show
from benchmarks.lib.results import Spread, between, ratios, spread, write
from ddpgd.run.records import read_records
from ddpgd.scaling.arguments import positive
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, version_of, versions_text
from ddpgd.scaling.processes import ONE_THREAD, RunFailed, last_lines
from ddpgd.scaling.records import Facts
from tools.netlab.main import Lab

PROGRAM = Program("bench_steps")
say = PROGRAM.say

GLOBAL_BATCH = 256
NETWORKS = {"784-128-10": (784, 128, 10), "784-512-512-10": (784, 512, 512, 10)}
MOST_STEPS = 234
"""Those of one epoch."""
TOGETHER_S = 16.0
"""What they take, about, if nothing but the link costs time."""
NAMES = {
    "float32": "ddpgd",
    "float16": "ddpgd --wire float16",
    "ddp": "PyTorch DDP, gloo",
    "ddp-half": "PyTorch DDP, gloo, fp16_compress_hook",
}


class NetworkFound(TypedDict):
    """Times of a network's steps; `ratios` of the two forms of DDP, each over a contestant's time."""

    network: str
    steps: int
    commands: dict[str, str]
    step_s: dict[str, Spread]
    ratios: dict[str, dict[str, Spread]]


class Found(Facts):
    """Everything that was measured."""

    rate: str
    num_repetitions: int
    networks: list[NetworkFound]


def command(name: str, sizes: tuple[int, ...], steps: int, python: str, data: str, folder: str) -> list[str]:
    """Returns the command for each host; `folder` does not exist before."""
    if name.startswith("ddp"):
        words = f"{PEERS / 'ddp_loop.py'} {data} {','.join(map(str, sizes))} 1 {GLOBAL_BATCH} {folder} --steps {steps}"
        return [python, *words.split(), *(["--hook", "fp16"] if name == "ddp-half" else [])]
    flags = (
        f"--hidden {','.join(map(str, sizes[1:-1]))} --global-batch {GLOBAL_BATCH} --micro-batch {GLOBAL_BATCH // NUM_RANKS} "
        f"--optimizer sgd --lr {LR} --weight-decay 0 --schedule constant --wire {name} --steps {steps} "
        f"--evaluate-every 1000000 --log-every {steps // 2} --quiet --backend numpy"
    )
    return [python, "-m", "ddpgd", "train", *flags.split(), "--data", data, "--run-dir", folder]


def run(lab: Lab, name: str, sizes: tuple[int, ...], steps: int, data: str) -> float:
    """Seconds a step, in the second half of them. RunFailed: it failed."""
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        words = command(name, sizes, steps, sys.executable, data, str(folder))
        if name.startswith("ddp"):
            done = lab.each(words, env=ONE_THREAD, capture=True)
        else:
            done = lab.mpirun(words, env=ONE_THREAD, capture=True)
        if done.returncode:
            raise RunFailed(f"{last_lines(done)}\n{NAMES[name]}: exit code {done.returncode}")
        if name.startswith("ddp"):
            return float(json.loads(done.stdout)["step_s"])
        *_, first, last = read_records(folder)
        return float((last["train_s"] - first["train_s"]) / (last["step"] - first["step"]))


def length(sizes: tuple[int, ...], rate: str) -> int:
    """Steps, an even number: more where the link takes less time for a gradient."""
    gradient_s = 4 * sum((k + 1) * n for k, n in pairwise(sizes)) / LAB_LINKS[rate]
    return min(MOST_STEPS, 2 * math.ceil(TOGETHER_S / gradient_s / 2))


def bench(asked: argparse.Namespace, data: str, arguments: list[str]) -> Found:
    """All networks; the JSON is written after each."""
    names = [name for name in NAMES if not name.startswith("ddp") or version_of("torch")]
    facts: Found = {
        **measured_by(typed("benchmarks.exchange.steps", arguments), (*MPI_PACKAGES, "torch")),
        "rate": asked.rate,
        "num_repetitions": asked.repetitions,
        "networks": [],
    }
    with Lab(hosts=NUM_RANKS, rate=asked.rate) as lab:
        for network in asked.networks:
            sizes = NETWORKS[network]
            taken: dict[str, list[float]] = {name: [] for name in names}
            steps = length(sizes, asked.rate)
            for number in range(1, asked.repetitions + 1):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    say(f"{network}, repetition {number}: {NAMES[name]}")
                    taken[name].append(run(lab, name, sizes, steps, data))
            commands = {
                name: shown(shlex.join(command(name, sizes, steps, "python", "DATA", "FOLDER"))) for name in names
            }
            facts["networks"].append(
                {
                    "network": network,
                    "steps": steps,
                    "commands": commands,
                    "step_s": {name: spread(own) for name, own in taken.items()},
                    "ratios": {name: _ratios(taken, name) for name in names},
                }
            )
            if asked.out:
                write(asked.out, facts)
    return facts


def _ratios(taken: dict[str, list[float]], name: str) -> dict[str, Spread]:
    """Returns the time of each form of DDP over that of `name`, within repetitions."""
    return {
        other: ratios(taken[other], taken[name]) for other in ("ddp", "ddp-half") if other in taken and other != name
    }


def table(facts: Found) -> list[str]:
    """Returns all networks in Markdown."""
    lines = [
        f"- command: `{facts['command']}`, {facts['time']}; load of the machine before: {facts['load_before']:.1f}",
        f"- commit: {facts['commit']}; hardware: {facts['hardware']}; {facts['num_cores']} cores; {versions_text(facts)}",
        f"- {NUM_RANKS} hosts, links of {facts['rate']}, global batch {GLOBAL_BATCH}, plain SGD; "
        f"{facts['num_repetitions']} repetitions, contestants in turn",
        "",
        "| network | | ms a step, median (min to max) | DDP's time over this | DDP's, with its hook, over this |",
        "|---|---|---|---|---|",
    ]
    for work in facts["networks"]:
        for name, own in work["step_s"].items():
            found = [work["ratios"][name].get(other) for other in ("ddp", "ddp-half")]
            cells = " | ".join("-" if one is None else f"{one['median']:.2f}" for one in found)
            lines.append(f"| {work['network']} | {NAMES[name]} | {between(own, '.1f', 1000)} | {cells} |")
    return lines


def networks(text: str) -> list[str]:
    unknown = [name for name in text.split(",") if name not in NETWORKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(NETWORKS)}")
    return text.split(",")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", metavar="FILE", type=new_file, help="JSON: median, least and most of each case")
    add("--page", metavar="FILE", type=Path, help="puts the table into this page")
    add("--rate", choices=list(LAB_LINKS), default="100mbit", help="of each link; default: 100mbit")
    add("--networks", metavar="NAMES", type=networks, default=list(NETWORKS), help=f"of {', '.join(NETWORKS)}")
    add("--repetitions", metavar="N", type=positive(int), default=5, help="default: 5")
    add("--data", metavar="DIR", help="folder with MNIST (default: $DDPGD_DATA, the cache)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Returns an exit code: 0 done, 1 a run failed, 2 wrong usage, missing data, or a machine that cannot hold a lab."""

    def work() -> bool:
        asked = parse(arguments)
        show(table(bench(asked, load(asked.data).source, arguments)), asked.page, "steps")
        return True

    return PROGRAM.run(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
