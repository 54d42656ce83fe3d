"""A sweep over ranks: groups of ranks train one run after the other; what is finished already is not repeated."""

import gc
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ddpgd.comm.agreement import on_all_ranks, on_root
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone, Transport
from ddpgd.config.schema import OPTIONS
from ddpgd.config.validation import PER_LAUNCH
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError, Interrupted, MachineError, NonFiniteError
from ddpgd.results.options import option_text
from ddpgd.results.row import COMPLETE, DIVERGES, FAILED, PENDING, Row, is_run, read_row
from ddpgd.results.sweep.hand_out import HandOut, SharedStop
from ddpgd.results.sweep.plan import Plan, table_of
from ddpgd.run import checkpoint_search, setup
from ddpgd.run.atomic import write_atomically
from ddpgd.run.failures import in_one_line
from ddpgd.run.folder import is_free
from ddpgd.run.loading import load_data
from ddpgd.run.lock import in_use
from ddpgd.run.stderr import say
from ddpgd.training.stopping import StopRequest

BASE = "sweep.json"
"""The file by which a folder is known as that of a sweep: its base configuration."""


def train_all(
    plan: Plan, out: Path, world: Transport, launch: Launch, stop: StopRequest, ranks_per_run: int
) -> tuple[dict[str, Row], str]:
    """Trains the runs of a sweep that are not finished; every rank of `world` calls it.

    Args:
        plan: The runs; run NAME lies in out/runs/NAME.
        out: The folder of the sweep.
        world: All ranks, which are split in groups.
        launch: What the launcher told this process.
        stop: Asked whether to write checkpoints and end.
        ranks_per_run: Ranks of a group; the last group may have fewer, so it must divide the world size.

    Returns:
        On every rank, the rows of the runs by their names, and why the sweep stopped before its end; empty: it did not.

    Raises:
        DdpgdError: On all ranks: the folder holds another sweep, or the machine failed.
    """
    if world.world_size % ranks_per_run:
        raise InputError(
            f"--ranks-per-run {ranks_per_run}: does not divide {world.world_size} ranks; start a multiple of it, as with "
            f"mpirun -n {ranks_per_run * 2}"
        )
    pending = on_root(world, lambda: _begin(plan, out))
    tickets = HandOut(out, pending, world)
    shared = SharedStop(own=stop, file=tickets.stop_file)
    group = world.split(world.rank // ranks_per_run) if ranks_per_run > 1 else Alone()
    try:
        with threadpool_limits(1, user_api="blas"):
            failed = on_all_ranks(world, lambda: _train_some(plan, out, group, launch, shared, tickets))
    finally:
        if world.rank == 0:
            tickets.close()
    told = world.all_gather_objects((failed, shared.reason))
    reasons = {name: reason for failures, _ in told for name, reason in failures.items()}
    rows = on_root(world, lambda: {name: _row(out / "runs" / name, reasons.get(name, "")) for name in plan.runs})
    return rows, next((reason for _, reason in told if reason), "")


def _begin(plan: Plan, out: Path) -> list[str]:
    """Makes the folder, or checks that it holds this sweep; returns the names of the runs that are not finished."""
    base, path = table_of(plan), out / BASE
    try:
        if path.exists():
            _check_same(base, json.loads(path.read_text(encoding="utf-8")), out)
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"--out {out}: is there already, and no sweep; name another folder")
        else:
            (out / "runs").mkdir(parents=True, exist_ok=True)
            write_atomically(path, [f"{json.dumps(base, indent=2)}\n".encode()])
    except (OSError, ValueError) as error:
        raise InputError(f"--out {out}: {getattr(error, 'strerror', None) or error}; name another folder") from None
    return [name for name in plan.runs if not _is_finished(out / "runs" / name)]


def _check_same(base: Mapping[str, Any], before: Any, out: Path) -> None:
    """Raises InputError if a folder holds the sweep of another base configuration."""
    if not isinstance(before, dict):
        raise InputError(f"--out {out}: {BASE} is damaged; name another folder")
    lasting = [name for name in OPTIONS if name not in PER_LAUNCH]
    for name in (name for name in lasting if base.get(name) != before.get(name)):
        was, now = (option_text(table.get(name)) for table in (before, base))
        raise InputError(f"--out {out}: holds a sweep with {name} = {was}, not {now}; name another folder")


def _is_finished(folder: Path) -> bool:
    """Returns whether a run has ended for good: with a summary, or because it diverged."""
    return is_run(folder) and read_row(folder).state in (COMPLETE, DIVERGES)


def _train_some(
    plan: Plan, out: Path, group: Transport, launch: Launch, stop: SharedStop, tickets: HandOut
) -> dict[str, str]:
    """Trains runs while there are any; returns why some could not begin, by their names."""
    failed: dict[str, str] = {}
    load = _loaded_once()
    while name := tickets.next(group, stop):
        folder = out / "runs" / name
        line = ""
        try:
            resume = on_root(group, lambda folder=folder: _place_to_resume(folder))  # type: ignore[misc]
            own = {"run_dir": str(folder), "quiet": True} | ({"resume": resume} if resume else {})
            of_run = {name: value for name, value in plan.options(name).items() if name not in ("transport", "ranks")}
            summary = setup.start_run(of_run | own, group, launch, stop, load)
            line = f"test accuracy {100 * summary['test_accuracy']:.2f} %, {summary['train_s']:.1f} s"
        except Interrupted:
            return failed
        except MachineError:
            tickets.stop()
            raise
        except NonFiniteError as error:
            line = f"diverged: {error}"
        except InputError as error:
            line = failed[name] = str(error)
        gc.collect()  # a run's objects refer to each other in circles, and hold its vectors
        if group.rank == 0:
            say(f"{name}: {line}")
    return failed


def _place_to_resume(folder: Path) -> str:
    """Returns the folder if its run goes on from a checkpoint; else empties it, for a run that was killed before the first."""
    with in_one_line():
        if is_free(folder):
            return ""
        if in_use(folder):
            raise InputError(f"{folder}: in use by a run that is alive; wait for its end")
        with suppress(checkpoint_search.NoCheckpointError):
            checkpoint_search.find(folder, say)
            return str(folder)
        shutil.rmtree(folder)
        return ""


def _loaded_once() -> Callable[..., Dataset]:
    """Returns a `load_data` that keeps what it has loaded: all ranks of a group ask for the same."""
    kept: dict[str | None, Dataset] = {}

    def load(given: str | None, *others: Any) -> Dataset:
        if given not in kept:
            kept[given] = load_data(given, *others)
        return kept[given]

    return load


def _row(folder: Path, reason: str) -> Row:
    """Returns the row of a run, or of one that could not begin."""
    row = read_row(folder) if is_run(folder) else Row(folder, FAILED if reason else PENDING)
    return replace(row, reason=reason) if reason else row
