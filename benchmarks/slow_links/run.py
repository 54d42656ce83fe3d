"""Time to 97 % and to 98 % test accuracy against the speed of the link between two hosts, beside one rank alone.

For each wire and --sync of ddpgd, and for PyTorch DDP with its hooks (benchmarks/slow_links/cases.py has their
flags): whole runs over shared memory say after how many steps an accuracy is reached, which no link changes; short runs
over each link (tools/netlab/main.py, which wants root) say what a step takes. Contestants take turns. With --out, a
measurement that was interrupted goes on: what the file has is not measured again.

    python -m benchmarks.slow_links.run --out benchmarks/slow_links/slow-links.json     all, in about an hour
    python -m benchmarks.slow_links.run --out benchmarks/slow_links/slow-links.json --accuracy --seeds 5
    python -m benchmarks.slow_links.run --links shm --networks 784-128-10 --repetitions 1   without root
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.lib.arguments import folder, load, new_file
from benchmarks.lib.common import NUM_RANKS, SHARED_MEMORY, typed
from benchmarks.lib.program import Program, check_tools, make_parser, show
from benchmarks.lib.results import write
from benchmarks.slow_links.cases import CONTESTANTS, LINKS, NETWORKS, REFERENCE, Run
from benchmarks.slow_links.phases import num_steps, phases
from benchmarks.slow_links.records import Found, StepTime
from benchmarks.slow_links.report import page_lines
from benchmarks.slow_links.runs import curve, step_s
from ddpgd.errors import InputError
from ddpgd.scaling.arguments import positive, some_of
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, version_of
from ddpgd.scaling.processes import RunFailed
from tools.netlab.main import Lab

PROGRAM = Program("bench_slow_links")
say = PROGRAM.say


def bench(asked: argparse.Namespace, data: str, arguments: list[str]) -> Found:
    """Measures what the file does not have yet; the JSON is written after each measurement."""
    found = earlier(asked) or Found(epochs=asked.epochs, starts=[], curves=[], steps=[], failed=[])
    names = [name for name in CONTESTANTS if name in (*asked.contestants, REFERENCE)]
    if not version_of("torch"):
        left_out = [name for name in names if CONTESTANTS[name].is_torch]
        names = [name for name in names if name not in left_out]
        say(f"PyTorch is not installed (pip install 'ddpgd[bench]'): without {', '.join(left_out) or 'loss'}")
    command_line = typed("benchmarks.slow_links.run", arguments)
    found["starts"].append(measured_by(command_line, (*MPI_PACKAGES, "torch")))
    found["failed"] = []
    for seed in range(asked.seeds):
        for network in asked.networks:
            for name in names:
                _curve(Run(CONTESTANTS[name].whole, network, seed, epochs=asked.epochs), found, asked, data)
    if not asked.accuracy:
        _steps(names, found, asked, data)
    return found


def _steps(names: list[str], found: Found, asked: argparse.Namespace, data: str) -> None:
    """Times steps: in each repetition all links and networks, in which the settings take turns."""
    settings = list(dict.fromkeys(phase.setting for name in names for phase in phases(CONTESTANTS[name].whole)))
    with contextlib.ExitStack() as stack:
        lab = None
        if asked.links != [SHARED_MEMORY]:
            lab = stack.enter_context(Lab(hosts=NUM_RANKS))
        for number in range(1, asked.repetitions + 1):
            for link in asked.links:
                if lab is not None and link != SHARED_MEMORY:
                    lab.set_rate(link)
                for network in asked.networks:
                    first = number % len(settings)
                    for setting in settings[first:] + settings[:first]:
                        run = Run(setting, network, steps=num_steps(setting, network, link))
                        _step(run, link, str(number), found, asked, partial(step_s, run, link, lab, data))


def _curve(run: Run, found: Found, asked: argparse.Namespace, data: str) -> None:
    """Adds a whole run to `found`, unless it is there."""
    key = run.network, str(run.setting), run.seed
    if any((one["network"], one["setting"], one["seed"]) == key for one in found["curves"]):
        return
    with _told("curves", key, found):
        steps_to, accuracy, wire_bytes = curve(run, data)
        found["curves"].append(
            {
                "network": run.network,
                "setting": str(run.setting),
                "seed": run.seed,
                "start": len(found["starts"]),
                "steps_to": steps_to,
                "accuracy": accuracy,
                "wire_bytes": wire_bytes,
            }
        )
        _save(found, asked)


def _step(
    run: Run, link: str, repetition: str, found: Found, asked: argparse.Namespace, timed: Callable[[], float]
) -> None:
    """Adds the time of a step in one repetition to `found`, unless it is there."""
    key = link, run.network, str(run.setting)
    same = [one for one in found["steps"] if (one["link"], one["network"], one["setting"]) == key]
    if same and repetition in same[0]["step_s"]:
        return
    with _told("steps", (*key, repetition), found):
        taken = timed()
        if not same:
            new = StepTime(link=link, network=run.network, setting=str(run.setting), num_steps=run.steps, step_s={})
            found["steps"].append(new)
            same = [new]
        same[0]["step_s"][repetition] = taken
        _save(found, asked)


@contextlib.contextmanager
def _told(kind: str, key: tuple[object, ...], found: Found) -> Iterator[None]:
    """Says what is measured; a run that fails is told and left out."""
    title = f"{kind}: {', '.join(map(str, key))}"
    say(title)
    try:
        yield
    except RunFailed as error:
        say(str(error))
        found["failed"].append(title)


def _save(found: Found, asked: argparse.Namespace) -> None:
    if asked.out:
        write(asked.out, found)


def earlier(asked: argparse.Namespace) -> Found | None:
    """Returns what the file of an interrupted measurement holds. InputError: it is none, or of other runs."""
    if not asked.out or not asked.out.exists():
        return None
    try:
        found: Found = json.loads(asked.out.read_text(encoding="utf-8"))
        epochs = found["epochs"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"--out: {str(asked.out)!r} is not of benchmarks.slow_links.run; name another file") from None
    if epochs != asked.epochs:
        raise InputError(
            f"--out: {str(asked.out)!r} holds runs of {epochs} epochs; name another file, or --epochs {epochs}"
        )
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", metavar="FILE", type=new_file, help="JSON; the same command continues it")
    add("--page", metavar="FILE", type=Path, help="puts the tables into this page")
    add("--plots", metavar="DIR", type=folder, help="a PNG for each network")
    add("--networks", metavar="NAMES", type=some_of(tuple(NETWORKS)), default=list(NETWORKS),
        help=f"of {', '.join(NETWORKS)}")  # fmt: skip
    add("--links", metavar="NAMES", type=some_of(LINKS), default=list(LINKS), help=f"of {', '.join(LINKS)}")
    add("--contestants", metavar="NAMES", type=some_of(tuple(CONTESTANTS)), default=list(CONTESTANTS),
        help=f"of {', '.join(CONTESTANTS)}; {REFERENCE} always runs")  # fmt: skip
    add("--repetitions", metavar="N", type=positive(int), default=3, help="of timed steps; default: 3")
    add("--seeds", metavar="N", type=positive(int), default=1, help="whole runs of each, seeds from 0; default: 1")
    add("--epochs", metavar="N", type=positive(int), default=10, help="of a whole run; default: 10")
    add("--accuracy", action="store_true", help="whole runs alone, nothing is timed")
    add("--data", metavar="DIR", help="folder with MNIST (default: $DDPGD_DATA, the cache)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Returns an exit code: 0 done, 1 a run failed and is missing, 2 wrong usage, or a machine without what it takes."""

    def work() -> bool:
        asked = parse(arguments)
        check_tools(asked.plots)
        found = bench(asked, load(asked.data).source, arguments)
        show(page_lines(found), asked.page, "slow links")
        if asked.plots:
            from benchmarks.slow_links.plot import draw

            for path in draw(found, asked.plots):
                say(f"wrote {path}")
        return not found["failed"]

    return PROGRAM.run(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
