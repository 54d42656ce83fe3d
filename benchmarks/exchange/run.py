"""The exchange alone, without training: ddpgd's sums of gradients beside the MPI library's own Allreduce.

Over shared memory, and over links of 1 Gbit, 100 Mbit and 10 Mbit a second between the hosts of a lab on this machine
(tools/netlab/main.py, which wants root); by 2, 3 and 4 ranks, from 4 B to 64 MB. In one process a rank, contestants take
turns within a repetition, with a barrier before each; a time is the slowest rank's. Beside each figure stands the least
that the link's latency and rate allow, both measured in the same start.

    python -m benchmarks.exchange.run --out benchmarks/exchange/exchange.json      all, in about 5 minutes
    python -m benchmarks.exchange.run --links shm --ranks 2 --seconds 40        without root
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.exchange.cases import LINKS, RANKS, Group, groups
from benchmarks.exchange.records import Found, GroupFound
from benchmarks.exchange.report import all_lines
from benchmarks.lib.arguments import folder, new_file
from benchmarks.lib.common import SHARED_MEMORY, typed
from benchmarks.lib.program import Program, check_tools, make_parser, show
from benchmarks.lib.results import write
from ddpgd.comm.traffic import ONE_SHOT_BYTES
from ddpgd.scaling.arguments import positive, some_of
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, mpirun_version
from ddpgd.scaling.processes import ONE_THREAD, RunFailed, run_for
from tools.netlab.main import Lab

PROGRAM = Program("bench_exchange")
say = PROGRAM.say

PATIENCE = 3
"""How many times its seconds, and PATIENCE_S more, a start may take before it is ended."""
PATIENCE_S = 30
START_S = 3.0
"""What a lab and an mpirun take, about."""


def bench(asked: argparse.Namespace, arguments: list[str]) -> Found:
    """All groups that fit; the JSON is written after each."""
    facts = empty(asked.seconds, arguments)
    ends = time.monotonic() + asked.seconds
    wanted = groups(asked.links, asked.ranks)
    for number, group in enumerate(wanted):
        left_s = ends - time.monotonic()
        share = group.weight / sum(other.weight for other in wanted[number:])
        seconds = left_s * share - START_S
        if seconds <= 0 and not asked.repetitions:
            say(f"{name(group)}: left out, the time is over")
            continue
        say(f"{name(group)}: {seconds:.0f} s")
        try:
            facts["groups"].append(measure(group, asked, seconds if not asked.repetitions else 1e5))
        except RunFailed as error:
            say(str(error))
            facts["failed"].append(name(group))
        if asked.out:
            write(asked.out, facts)
    return facts


def measure(group: Group, asked: argparse.Namespace, seconds: float) -> GroupFound:
    """One start: what its ranks wrote. RunFailed: it failed."""
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as folder:
        out = Path(folder) / "found.jsonl"
        given = {"link": group.link, "seconds": seconds, "sizes": asked.sizes, "repetitions": asked.repetitions}
        words = json.dumps(given | {"out": str(out)})
        # By mpi4py's own runner: a rank that fails ends all.
        command = [sys.executable, "-m", "mpi4py", "-m", "benchmarks.exchange.worker", words]
        try:
            start(group, command, PATIENCE * seconds + PATIENCE_S)
        except subprocess.TimeoutExpired:
            say(f"{name(group)}: ended, not over after {PATIENCE} times its time; what was measured is kept")
        lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    if not lines:
        raise RunFailed(f"{name(group)}: nothing was measured")
    link, *found = map(json.loads, lines)
    return {
        "link": group.link,
        "num_ranks": group.num_ranks,
        "ping_pong": link["ping_pong"],
        "cases": [record for record in found if "contestants" in record],
        "left_out": [record["left_out"] for record in found if "left_out" in record],
    }


def start(group: Group, command: list[str], timeout: float) -> None:
    """The ranks: of this machine, or one on each host of a lab. RunFailed: they failed."""
    if group.link == SHARED_MEMORY:
        crowded = ["--oversubscribe"] if group.num_ranks > len(os.sched_getaffinity(0)) else []
        done = run_for(["mpirun", *crowded, "-n", str(group.num_ranks), *command], timeout)
    else:
        with Lab(hosts=group.num_ranks, rate=group.link) as lab:
            done = lab.mpirun(command, env=ONE_THREAD, timeout=timeout, capture=True)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-20:])
        raise RunFailed(f"{said}\n{name(group)}: exit code {done.returncode}")


def empty(seconds: float, arguments: list[str]) -> Found:
    """Returns the conditions of a measurement that has found nothing yet."""
    facts = measured_by(typed("benchmarks.exchange.run", arguments), MPI_PACKAGES)
    facts["environment"] |= ONE_THREAD
    return {
        **facts,
        "mpirun": mpirun_version(),
        "one_shot_bytes": ONE_SHOT_BYTES,
        "seconds": seconds,
        "groups": [],
        "failed": [],
    }


def name(group: Group) -> str:
    return f"{group.link}, {group.num_ranks} ranks"


def sizes(text: str) -> list[int]:
    numbers = [int(word) if word.isdecimal() else 0 for word in text.split(",")]
    if not all(0 < number <= 1 << 30 and number % 4 == 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of bytes, multiples of 4, as in 4096,407080")
    return numbers


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", metavar="FILE", type=new_file, help="JSON: median, least and most of each case")
    add("--plots", metavar="DIR", type=folder, help="a PNG for each link and number of ranks")
    add("--seconds", metavar="S", type=positive(float), default=300.0, help="all together, about; default: 300")
    add("--links", metavar="NAMES", type=some_of(LINKS), default=list(LINKS), help=f"of {', '.join(LINKS)}")
    add("--ranks", metavar="NUMBERS", type=some_of(RANKS), default=list(RANKS), help="of 2, 3, 4")
    add("--sizes", metavar="BYTES", type=sizes, help="in place of 4 B to 64 MB")
    add("--repetitions", metavar="N", type=positive(int), help="so many, whatever time they take")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Returns an exit code: 0 done, 1 a start failed and is missing, 2 wrong usage, or a machine without what it takes."""

    def work() -> bool:
        asked = parse(arguments)
        check_tools(asked.plots)
        found = bench(asked, arguments)
        show(all_lines(found))
        if asked.plots:
            from benchmarks.exchange.plot import draw

            for path in draw(found, asked.plots):
                say(f"wrote {path}")
        return not found["failed"]

    return PROGRAM.run(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
