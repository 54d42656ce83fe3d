"""Training and evaluation, on all ranks that a launcher started."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from ddpgd.comm.launcher import Launch, launch
from ddpgd.comm.transport import Transport
from ddpgd.config.parsing import coerce
from ddpgd.config.schema import OPTIONS, Config
from ddpgd.errors import DdpgdError, InputError, shown
from ddpgd.run.summary import Evaluation, Summary


def train(config: Config) -> Summary:
    """Trains a network as `ddpgd train` does with the same options, on all ranks that the launcher started.

    Every rank calls it. It writes a run folder, and a checkpoint at the end.

    Args:
        config: The run. `Config()` trains 784-512-10 on MNIST for 10 epochs.

    Returns:
        The summary of the run, on every rank. Its `run_dir` is what `evaluate`, `predict`, `read_history` and
        `load_params` take.

    Raises:
        InputError: An option, the data or a folder is wrong. On all ranks.
        NonFiniteError: A gradient had NaN or infinity. On all ranks.
        ReplicasDiffer: Ranks hold different params. On all ranks.
        Interrupted: A signal or `max_time` ended the run after a checkpoint. On all ranks.

        Any other failure of one of several ranks prints its traceback and ends all of them; so does a run that does not move
        for `hang_timeout` seconds. A process alone, which may be a notebook, waits unless that is set.

    >>> import ddpgd, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> config = ddpgd.Config(data="synthetic", hidden=(16,), steps=20, run_dir=folder + "/first", quiet=True)
    >>> summary = ddpgd.train(config)
    >>> summary["complete"], summary["steps"], summary["num_params"]
    (True, 20, 12730)
    """
    from ddpgd.run import starting
    from ddpgd.training.stopping import StopRequest

    given = _given(config)
    stop = StopRequest()
    with stop.listening(), _ranks(may_use_gpu=config.backend != "numpy") as (world, launched):
        alone = {"hang_timeout": 0.0} if world.world_size == 1 else {}
        return cast(Summary, starting.start_run(alone | given, world, launched, stop))


def evaluate(run: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> Evaluation:
    """Computes test loss and accuracy of a checkpoint on CPUs, on all ranks that the launcher started.

    Every rank calls it.

    Args:
        run: A run folder, whose best or newest checkpoint is taken, or a checkpoint file.
        data: A folder with IDX files, or "synthetic"; default: the data that the run was trained on.

    Returns:
        Loss, accuracy and what they were computed on, on every rank.

    Raises:
        InputError: There is no whole checkpoint, or no data of its image shape. On all ranks.

    >>> import ddpgd, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> config = ddpgd.Config(data="synthetic", hidden=(16,), steps=20, run_dir=folder + "/first", quiet=True)
    >>> summary = ddpgd.train(config)
    >>> found = ddpgd.evaluate(summary["run_dir"])
    >>> found["step"], found["test_accuracy"] == summary["test_accuracy"]
    (20, True)
    """
    from ddpgd.run import setup

    with _ranks() as (world, launched):
        return setup.evaluate_checkpoint(Path(run), None if data is None else os.fspath(data), world, launched)


def _given(config: Config) -> dict[str, Any]:
    """Returns the fields that differ from their defaults, coerced. InputError: it is none, or a value is wrong."""
    if not isinstance(config, Config):
        raise InputError(
            f"train: {shown(repr(config))} is no Config; type for example ddpgd.train(ddpgd.Config(steps=100))"
        )
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    coerced = {
        name: coerce(OPTIONS[name], value, f"Config.{name}") for name, value in values.items() if value is not None
    }
    return {name: value for name, value in coerced.items() if value != OPTIONS[name].default}


@contextmanager
def _ranks(may_use_gpu: bool = False) -> Iterator[tuple[Transport, Launch]]:
    """Joins the ranks that the launcher started; frees their communicators in the end.

    NumPy's error handling is the caller's again after it: every step checks whether its gradient is finite.
    """
    from ddpgd.run import setup

    launched = launch(os.environ)
    world = setup.join(launched, may_use_gpu=may_use_gpu)
    with setup.ending_all_on_failure(world), np.errstate(all="ignore"):
        try:
            yield world, launched
        except DdpgdError:
            world.close()
            raise
    world.close()
    gc.collect()  # a run's objects refer to each other in circles, and hold the data
