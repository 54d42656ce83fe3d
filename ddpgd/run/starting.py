"""The start of a run on all ranks: they agree on its configuration and its data; with --elastic, once more without the dead."""

import io
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ddpgd.comm import whereabouts
from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Transport
from ddpgd.comm.whereabouts import ACTIVITY, LOADING
from ddpgd.config.continuation import continued
from ddpgd.config.schema import Config, from_table
from ddpgd.config.validation import changed, check_rule_has, validate
from ddpgd.data.holdout import hold_out
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.optim.schedules import PLATEAU
from ddpgd.run import build_network, checkpoint_search, tensorboard
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.device import agree, elastic_ranks
from ddpgd.run.folder import check_keeps_later
from ddpgd.run.loading import load_data
from ddpgd.run.progress import Bar, Guarded, Lines, Quiet
from ddpgd.run.ranks import run_on_ranks
from ddpgd.run.stderr import say
from ddpgd.run.survival import Survival
from ddpgd.training.counters import Record
from ddpgd.training.stopping import StopRequest
from ddpgd.watch.watchdog import watching


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
    start = _Start(given, launch, stop, load)
    if not given.get("elastic") or world.world_size == 1:
        return start.on(world)
    ranks = elastic_ranks(world, launch.world_size)
    start.survival = Survival(world.rank, world.world_size, ranks.survived)
    return ranks.run(start.on)


class _Start:
    """One rank's start of a run; where ranks die, it is repeated by those that are left, and goes on from where they were."""

    def __init__(
        self, given: Mapping[str, Any], launch: Launch, stop: StopRequest, load: Callable[..., Dataset]
    ) -> None:
        self._given = given
        self._launch = launch
        self._stop = stop
        self._load = load
        self._data: Dataset | None = None
        self.survival: Survival | None = None

    def on(self, world: Transport) -> Record:
        """Trains on the ranks of `world`; returns the summary."""
        given, survival = self._given, self.survival
        with watching(world, self._stop, given.get("hang_timeout", Config.hang_timeout)) as watched:
            saved = survival.agree(watched) if survival else None
            resumed = None
            if saved is None and given.get("resume") is not None:
                resumed = checkpoint_search.find_on_root(
                    watched, lambda: checkpoint_search.find_to_go_on(_place(given), say)
                )
            if saved:
                config = from_table(saved.config)
            else:
                config = on_root(watched, lambda: _configure(given, resumed, given.get("ranks") or world.world_size))
            machine = agree(config, resumed is not None, world, self._launch.local_rank)
            whereabouts.here()[ACTIVITY] = LOADING
            data = self._loaded(config, watched)
        if resumed and _has_other_rates(config, from_table(resumed[1].config)):
            changed_at = {"length_changed_at": resumed[1].counters["step"]}
            resumed = resumed[0], replace(resumed[1], counters=dict(resumed[1].counters) | changed_at)
        show = _shower(config, _console(self._launch))
        return run_on_ranks(config, resumed, data, world, machine, self._stop, show, survival, saved)

    def _loaded(self, config: Config, world: Transport) -> Dataset:
        """Returns the data, which ranks that were left have already."""
        if self.survival is None or not all(world.all_gather_objects(self._data is not None)):
            is_silent = config.quiet or self._launch.local_rank > 0
            whole = self._load(config.data, world, self._launch, _silent if is_silent else say)
            build_network.input_shape(config, whole.image_shape)
            self._data = hold_out(whole, config.validation)
        assert self._data is not None, "every rank has it, or has loaded it"
        return self._data


def _shower(config: Config, console: Console) -> Callable[[int, int, int], Quiet]:
    """Returns what makes what rank 0 shows of a run: (total_steps, num_epochs, steps_done)."""

    def show(total_steps: int, num_epochs: int, steps_done: int) -> Quiet:
        if config.quiet:
            return Quiet()
        if console.is_terminal:
            return Guarded(Bar(console, total_steps, num_epochs, steps_done))
        return Guarded(Lines(console, total_steps, num_epochs))

    return show


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
