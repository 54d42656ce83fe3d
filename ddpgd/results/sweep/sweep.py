"""A sweep over ranks: groups of ranks train one run after the other; what is finished already is not repeated."""

import gc
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone, Transport
from ddpgd.config.schema import Config
from ddpgd.data.mnist import Dataset
from ddpgd.errors import DdpgdError, InputError, Interrupted, MachineError, NonFiniteError, OutOfMemory
from ddpgd.results.listing import percent
from ddpgd.results.row import COMPLETE, FAILED, PENDING, Row, is_run, read_row
from ddpgd.results.sweep.folder import begin, place_to_resume
from ddpgd.results.sweep.hand_out import HandOut, SharedStop
from ddpgd.results.sweep.plan import Plan
from ddpgd.run import build_network, starting
from ddpgd.run.failures import in_one_line
from ddpgd.run.loading import load_data
from ddpgd.run.stderr import say
from ddpgd.training.stopping import StopRequest


def train_all(
    plan: Plan, out: Path, world: Transport, launch: Launch, stop: StopRequest, ranks_per_run: int
) -> tuple[dict[str, Row], DdpgdError | None]:
    """Trains the runs of a sweep that are not finished; every rank of `world` calls it.

    Args:
        plan: The runs; run NAME lies in out/runs/NAME.
        out: The folder of the sweep.
        world: All ranks, which are split in groups.
        launch: What the launcher told this process.
        stop: Asked whether to write checkpoints and end.
        ranks_per_run: Ranks of a group; the last group may have fewer, so it must divide the world size.

    Returns:
        On every rank, the rows of the runs by their names, and why the sweep stopped before its end: Interrupted, or
        MachineError; None: it did not.

    Raises:
        InputError: On all ranks: the folder holds another sweep, or one that is alive, or no run can begin.
    """
    if world.world_size % ranks_per_run:
        raise InputError(
            f"--ranks-per-run {ranks_per_run}: does not divide {world.world_size} ranks; start a multiple of it, as with "
            f"mpirun -n {ranks_per_run * 2}"
        )
    with ExitStack() as held:
        pending = on_root(world, lambda: begin(plan, out, held))
        load = _loaded_once()
        if pending:
            _check_base(plan, world, launch, ranks_per_run, load)
        hand_out = HandOut(out, pending, world)
        if world.rank == 0:
            held.callback(hand_out.close)
        shared = SharedStop(own=stop, file=hand_out.stop_file)
        group = world.split(world.rank // ranks_per_run) if ranks_per_run > 1 else Alone()
        with threadpool_limits(1, user_api="blas"):
            told = world.all_gather_objects(_train_some(plan, out, group, launch, shared, hand_out, load))
        reasons = {name: reason for failures, _ in told for name, reason in failures.items()}
        rows = on_root(world, lambda: {name: _row(out / "runs" / name, reasons.get(name, "")) for name in plan.runs})
        if all(row.state == FAILED for row in rows.values()):
            raise InputError(f"no run can begin; the first: {next(iter(rows.values())).reason}")
    ends = [end for _, end in told if end]
    return rows, min(ends, key=lambda end: isinstance(end, Interrupted), default=None)


def _check_base(plan: Plan, world: Transport, launch: Launch, ranks_per_run: int, load: Callable[..., Dataset]) -> None:
    """Raises InputError, on all ranks, if data or grid of all runs cannot be had; every rank of `world` calls it."""
    if "data" not in plan.swept:
        load(plan.base.get("data"), world, launch, say)
    if {"tensor", "pipeline"}.isdisjoint(plan.swept):
        axes = {name: plan.base[name] for name in ("tensor", "pipeline") if name in plan.base}
        build_network.grid_shape(Config(**axes), ranks_per_run)


def _train_some(
    plan: Plan,
    out: Path,
    group: Transport,
    launch: Launch,
    stop: SharedStop,
    hand_out: HandOut,
    load: Callable[..., Dataset],
) -> tuple[dict[str, str], DdpgdError | None]:
    """Trains runs while there are any; returns why some could not be trained, by their names, and what ended this early."""
    failed: dict[str, str] = {}
    try:
        while name := hand_out.next(group, stop):
            try:
                line = _train(plan.train_options(name), out / "runs" / name, group, launch, stop, load)
            except NonFiniteError as error:
                line = f"diverged: {error}"
            except (InputError, OutOfMemory) as error:
                line = failed[name] = str(error)
            gc.collect()  # a run's objects refer to each other in circles, and hold its vectors
            if group.rank == 0:
                say(f"{name}: {line}")
    except Interrupted:
        pass
    except MachineError as error:
        hand_out.stop()
        return failed, error
    return failed, Interrupted(stop.reason) if stop.reason else None


def _train(
    options: dict[str, Any],
    folder: Path,
    group: Transport,
    launch: Launch,
    stop: SharedStop,
    load: Callable[..., Dataset],
) -> str:
    """Trains one run, from its checkpoint where it has one; returns a line on its results."""
    resume = on_root(group, lambda: place_to_resume(folder))
    own = {"run_dir": str(folder), "quiet": True} | ({"resume": resume} if resume else {})
    # Other ranks of a group cannot know that this one ran out of memory: there it ends the program.
    with in_one_line() if group.world_size == 1 else nullcontext():
        summary = starting.start_run(options | own, group, launch, stop, load)
    return f"test accuracy {percent(summary['test_accuracy'])}, {summary['train_s']:.1f} s"


def _loaded_once() -> Callable[..., Dataset]:
    """Returns a `load_data` that keeps what it has loaded: all ranks of a group ask for the same."""
    kept: dict[str | None, Dataset] = {}

    def load(given: str | None, *others: Any) -> Dataset:
        if given not in kept:
            kept[given] = load_data(given, *others)
        return kept[given]

    return load


def _row(folder: Path, reason: str) -> Row:
    """Returns the row of a run. `reason`: why this start could not train it; empty: it did, or did not try."""
    row = read_row(folder) if is_run(folder) else Row(folder, PENDING)
    return replace(row, state=FAILED, reason=reason) if reason and row.state != COMPLETE else row
