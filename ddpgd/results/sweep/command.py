"""`ddpgd sweep`: a grid or a random search over ranks, and its results."""

from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports import threads
from ddpgd.config.parsing import path
from ddpgd.errors import InputError, Interrupted
from ddpgd.results.sweep import outcome, page
from ddpgd.results.sweep.outcome import Outcome
from ddpgd.results.sweep.plan import Plan, read_plan
from ddpgd.results.sweep.sweep import train_all
from ddpgd.run.failures import in_one_line
from ddpgd.run.stderr import say
from ddpgd.training.stopping import StopRequest

WORK_OPTIONS = ()
"""Options of `train` that are flags of `sweep`: it reads them from its file."""

DESCRIPTION = """\
Train every combination of the options that the table [sweep] of FILE.toml lists, or with random = N, N draws from its lists
and ranges; what stands above the table, all runs have. The ranks are split in groups of --ranks-per-run, which take one run
after the other; results do not depend on the number of groups. The folder --out receives a run folder for each, results.csv,
results.json, sweep.svg and sweep.html. The same command goes on with a sweep that was stopped. Exit code: 0 done, 2 wrong
input, 75 stopped."""


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd sweep`, and its description."""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("file", metavar="FILE.toml", type=path, help="options of all runs, and the table [sweep] of those that vary")
    add("--out", metavar="FOLDER", type=path, help="folder for all results (default: the file's name without .toml)")
    add("--ranks-per-run", metavar="K", type=int, default=1, help="ranks that train a run together (default: 1)")


def run(parsed: Mapping[str, Any], world: Transport, launch: Launch, stop: StopRequest) -> None:
    """Makes the sweep that the flags ask for, and prints its results on rank 0; every rank calls it.

    Raises:
        DdpgdError: On all ranks alike; see `errors`.
    """
    file, ranks_per_run = parsed["file"], parsed["ranks_per_run"]
    plan = on_root(world, lambda: read_plan(file))
    if ranks_per_run < 1:
        raise InputError(f"--ranks-per-run {ranks_per_run}: must be at least 1")
    out = Path(parsed.get("out") or Path(file).stem)
    if world.rank == 0:
        for note in plan.notes:
            say(note)
    given = plan, out, launch, stop, ranks_per_run
    if plan.base.get("transport") != "threads":
        _on_ranks(world, *given)
    elif world.world_size > 1:
        raise InputError(
            f'transport = "threads" under mpirun, which started {world.world_size} ranks: drop one of the two'
        )
    else:
        threads.run(plan.base["ranks"], lambda own: _on_ranks(own, *given))


def _on_ranks(world: Transport, plan: Plan, out: Path, launch: Launch, stop: StopRequest, ranks_per_run: int) -> None:
    rows, end = train_all(plan, out, world, launch, stop, ranks_per_run)
    found = Outcome(plan, rows)

    def tell() -> None:
        with in_one_line():
            page.write(found, out, ranks_per_run)
        for note in found.notes:
            say(f"WARNING: {note}")
        print("\n".join(outcome.lines(found)))
        print(f"all of it in {out}, as a page in {out / 'sweep.html'}", flush=True)

    on_root(world, tell)
    if isinstance(end, Interrupted):
        num_done = sum(row.has_ended for row in rows.values())
        raise Interrupted(f"{end}: {num_done} of {len(rows)} runs have ended; the same command goes on with the others")
    if end:
        raise end
