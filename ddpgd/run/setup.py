"""From a launcher's environment to ranks that agree: the world, the configuration, the data; then the run."""

import io
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ddpgd.comm import whereabouts
from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch, node
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.whereabouts import ACTIVITY, LOADING
from ddpgd.config.schema import Config, from_table
from ddpgd.config.validation import changed, check_rule_has, continued, validate
from ddpgd.data.holdout import hold_out
from ddpgd.data.mnist import Dataset
from ddpgd.errors import DdpgdError, InputError
from ddpgd.kernels.cuda import device as cuda_device
from ddpgd.optim.schedules import PLATEAU
from ddpgd.run import checkpoint_search, inference, tensorboard
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.device import agree, mpi_world
from ddpgd.run.failures import as_one_line
from ddpgd.run.folder import check_keeps_later
from ddpgd.run.loading import load_data
from ddpgd.run.progress import Bar, Guarded, Lines, Quiet
from ddpgd.run.ranks import run_on_ranks
from ddpgd.run.stderr import say
from ddpgd.run.summary import Evaluation
from ddpgd.training.counters import Record
from ddpgd.training.stopping import StopRequest
from ddpgd.watch.watchdog import watching

Say = Callable[[str], None]


def join(launch: Launch, may_use_gpu: bool = False) -> Transport:
    """Returns the transport between all ranks that were launched.

    With `may_use_gpu`, a GPU becomes the current one first: a CUDA-aware MPI library looks for it when it starts.

    Raises:
        InputError: MPI is missing, or is not the launcher's.
    """
    if may_use_gpu:
        cuda_device.select(launch.local_rank)
    if launch.world_size == 1:
        return Alone()
    transport = mpi_world(f"{launch.launcher} started {launch.world_size} ranks")
    if transport.world_size != launch.world_size:
        raise InputError(
            f"{launch.launcher} started {launch.world_size} ranks, but the MPI library of mpi4py sees "
            f"{transport.world_size}: they do not match; use the mpirun that belongs to that library"
        )
    return transport


def start_run(
    given: Mapping[str, Any],
    world: Transport,
    launch: Launch,
    stop: StopRequest,
    load: Callable[..., Dataset] = load_data,
) -> Record:
    """Trains with the options in `given`, on all ranks; returns the summary.

    Args:
        given: Options by name, coerced; `resume` may be "", which means the folder of `run_dir`.
        world: All ranks that were launched.
        launch: What the launcher told this process.
        stop: Asked, before one or more steps, whether to write a checkpoint and end.
        load: Loads the data, as `load_data`.

    Raises:
        DdpgdError: On all ranks alike; see `errors`.
    """
    console = _console(launch)
    with watching(world, stop, given.get("hang_timeout", Config.hang_timeout)) as watched:
        resumed = None
        if given.get("resume") is not None:
            resumed = checkpoint_search.find_on_root(
                watched, lambda: checkpoint_search.find_to_go_on(_place(given), say)
            )
        config = on_root(watched, lambda: _configure(given, resumed, given.get("ranks") or world.world_size))
        machine = agree(config, resumed is not None, world, launch.local_rank)
        quiet = config.quiet or world.rank > 0
        whereabouts.here()[ACTIVITY] = LOADING
        whole = load(config.data, watched, launch, _silent if config.quiet or launch.local_rank > 0 else say)
    if resumed and _has_other_rates(config, from_table(resumed[1].config)):
        changed_at = {"length_changed_at": resumed[1].counters["step"]}
        resumed = resumed[0], replace(resumed[1], counters=dict(resumed[1].counters) | changed_at)
    data = hold_out(whole, config.validation)

    def show(total_steps: int, num_epochs: int, steps_done: int) -> Quiet:
        if quiet:
            return Quiet()
        if console.is_terminal:
            return Guarded(Bar(console, total_steps, num_epochs, steps_done))
        return Guarded(Lines(console, total_steps, num_epochs))

    return run_on_ranks(config, resumed, data, world, machine, stop, show)


def evaluate_checkpoint(path: Path, data: str | None, world: Transport, launch: Launch) -> Evaluation:
    """Computes test loss and accuracy of a checkpoint, on all ranks.

    Args:
        path: A run folder, whose best or newest checkpoint is taken, or a checkpoint file.
        data: As `--data`; None: the data that the run was trained on.
        world: All ranks that were launched.
        launch: What the launcher told this process.

    Raises:
        InputError: There is no whole checkpoint, or no data of its image shape. On all ranks.
    """
    _, saved = checkpoint_search.find_on_root(world, lambda: checkpoint_search.find_best(path, say))
    dataset = load_data(saved.config.get("data") if data is None else data, world, launch, say)
    loss_mean, accuracy = inference.evaluate(saved, dataset, world)
    return Evaluation(
        step=saved.counters["step"],
        test_loss_mean=loss_mean if math.isfinite(loss_mean) else None,
        test_accuracy=accuracy,
        test_samples=len(dataset.test_labels),
        data=dataset.source,
        world_size=world.world_size,
    )


def _place(given: Mapping[str, Any]) -> Path:
    """Returns what --resume names: a checkpoint, or a run folder."""
    place = given["resume"] or given.get("run_dir")
    if not place:
        raise InputError("--resume alone needs to know the run: type --run-dir FOLDER --resume, or --resume CHECKPOINT")
    return Path(place)


def _configure(given: Mapping[str, Any], resumed: tuple[Path, Checkpoint] | None, world_size: int) -> Config:
    """Returns the configuration: the options that are given, over those of the checkpoint."""
    if resumed is None:
        config = Config(**given)
        check_rule_has(config.optimizer, changed(given))
        _validate(config)
        return config
    path, saved = resumed
    if not given.get("run_dir"):
        check_keeps_later(_place(given), path)
    before = from_table(saved.config)
    own_folder = {} if given.get("run_dir") else {"run_dir": None}
    config = continued(before, {**own_folder, **given, "resume": None}, world_size)
    check_rule_has(config.optimizer, changed(given))
    _validate(config)
    if _has_other_rates(config, before):
        say(f"the run has another length now, so the {config.schedule} schedule goes on differently")
    return config


def _has_other_rates(config: Config, before: Config) -> bool:
    """Returns whether a run that goes on has another length than before, on which its learning rates depend."""
    now, then = ((one.epochs, one.steps or one.rounds) for one in (config, before))
    return config.schedule not in ("constant", PLATEAU) and now != then


def _validate(config: Config) -> None:
    validate(config)
    if config.tensorboard:
        tensorboard.check()


@contextmanager
def ending_all_on_failure(world: Transport) -> Iterator[None]:
    """Ends all ranks when this one fails with anything but a `DdpgdError`, which all ranks raise alike.

    A foreseeable failure is told in one line, any other with its traceback.
    """
    try:
        yield
    except DdpgdError:
        raise
    except BaseException as error:
        if world.world_size == 1:
            raise
        line = as_one_line(error)
        # Where all ranks fail alike, the first that speaks ends the others before they do.
        time.sleep(min(1.0, 0.05 * world.rank))
        with suppress(OSError):
            print(f"ddpgd: rank {world.rank} of {world.world_size} on {node()} failed: {line or ''}", file=sys.stderr)
            if line is None:
                traceback.print_exc()
            sys.stderr.flush()
        world.abort(line.exit_code if line else 1)


def _console(launch: Launch) -> Console:
    """Returns standard output. Under a launcher, DDPGD_TERMINAL is the number of columns of its terminal.

    What a rank itself sees says nothing: Open MPI gives it a terminal without columns whatever is behind it.
    """
    if sys.stdout is None:
        return Console(file=io.StringIO(), force_terminal=False)
    if not launch.launcher:
        return Console(force_terminal=sys.stdout.isatty())
    columns = os.environ.get("DDPGD_TERMINAL", "")
    is_terminal = columns.isdecimal() and len(columns) < 6
    return Console(width=int(columns) if is_terminal else None, force_terminal=is_terminal)


def _silent(line: str) -> None:
    pass
