"""The library: training and evaluation as `ddpgd` does them, and the exchange for a training loop of your own."""

import gc
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.launcher import Launch, launch
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.wires import FORMATS
from ddpgd.config.parsing import check_choice, coerce
from ddpgd.config.schema import OPTIONS, Config
from ddpgd.errors import DdpgdError, InputError, Interrupted, NonFiniteError
from ddpgd.kernels.words import Tail as StepStats
from ddpgd.run.summary import Evaluation, Summary

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = [
    "Config",
    "DdpgdError",
    "Evaluation",
    "Exchange",
    "InputError",
    "Interrupted",
    "NonFiniteError",
    "StepStats",
    "Summary",
    "evaluate",
    "exchange",
    "load_params",
    "predict",
    "read_history",
    "train",
]


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
        Interrupted: A signal or `max_time` ended the run after a checkpoint. On all ranks.

        Any other failure of one of several ranks prints its traceback and ends all of them.

    >>> import ddpgd, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> config = ddpgd.Config(data="synthetic", hidden=(16,), steps=20, run_dir=folder + "/first", quiet=True)
    >>> summary = ddpgd.train(config)
    >>> summary["complete"], summary["steps"], summary["num_params"]
    (True, 20, 12730)
    """
    from ddpgd.run import setup
    from ddpgd.training.stopping import StopRequest

    given = _given(config)
    stop = StopRequest()
    with stop.listening(), _ranks(may_use_gpu=config.backend != "numpy") as (world, launched):
        return cast(Summary, setup.start_run(given, world, launched, stop))


def evaluate(run: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> Evaluation:
    """Computes test loss and accuracy of a checkpoint on CPUs, on all ranks that the launcher started.

    Every rank calls it.

    Args:
        run: A run folder, whose newest checkpoint is taken, or a checkpoint file.
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
    from ddpgd.run import checkpoint, inference, setup
    from ddpgd.run.stderr import say

    with _ranks() as (world, launched):
        _, saved = checkpoint.find_on_root(world, lambda: Path(run), say)
        choice = saved.config.get("data") if data is None else os.fspath(data)
        dataset = setup.load_data(choice, world, launched, say)
        loss_mean, accuracy = inference.evaluate(saved, dataset, world)
        return Evaluation(
            step=saved.counters["step"],
            test_loss_mean=loss_mean if math.isfinite(loss_mean) else None,
            test_accuracy=accuracy,
            test_samples=len(dataset.test_labels),
            data=dataset.source,
            world_size=world.world_size,
        )


def predict(run: str | os.PathLike[str], images: ArrayLike) -> NDArray[np.float64]:
    """Computes class probabilities of images by a checkpoint's network, in this process.

    Args:
        run: A run folder, whose newest checkpoint is taken, or a checkpoint file.
        images: uint8 (B, rows, cols), light on dark as in MNIST, of the size that the network was trained on.

    Returns:
        Probabilities, float64 (B, C); each row adds up to 1.

    Raises:
        InputError: There is no whole checkpoint, or the images have another type or size.

    >>> import ddpgd, numpy, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> config = ddpgd.Config(data="synthetic", hidden=(16,), steps=20, run_dir=folder + "/first", quiet=True)
    >>> run_dir = ddpgd.train(config)["run_dir"]
    >>> ddpgd.predict(run_dir, numpy.zeros((5, 28, 28), numpy.uint8)).shape
    (5, 10)
    """
    from ddpgd.run import checkpoint, inference
    from ddpgd.run.stderr import say

    _, saved = checkpoint.find(Path(run), say)
    pixels = np.asarray(images)
    rows, cols = saved.facts["image_shape"]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (rows, cols) or not len(pixels):
        raise InputError(
            f"predict: images are {pixels.dtype} {pixels.shape}; hand over uint8 (B, {rows}, {cols}), light on dark"
        )
    with np.errstate(all="ignore"):
        return inference.probabilities(saved, pixels.reshape(len(pixels), -1))


def read_history(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the records of a run: one for each `log_every` steps and each evaluation.

    Args:
        run: A run folder.

    Returns:
        The lines of metrics.jsonl, oldest first. Each has at least "step", "epoch", "train_loss_mean", "lr" and
        "grad_norm"; those of an evaluation have "test_loss_mean" and "test_accuracy" (0 to 1).

    Raises:
        InputError: The folder has no records, or damaged ones.

    >>> import ddpgd, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> config = ddpgd.Config(
    ...     data="synthetic", hidden=(16,), steps=20, log_every=10, run_dir=folder + "/first", quiet=True
    ... )
    >>> [record["step"] for record in ddpgd.read_history(ddpgd.train(config)["run_dir"])]
    [1, 10, 20]
    """
    from ddpgd.run.records import read_records

    return read_records(Path(run))


def load_params(run: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Loads the params of a checkpoint.

    Args:
        run: A run folder, whose newest checkpoint is taken, or a checkpoint file.

    Returns:
        float32 arrays by name: "dense1.weight" (K, N), "dense1.bias" (N,), and so on; a layer computes x @ weight + bias.

    Raises:
        InputError: There is no whole checkpoint.

    >>> import ddpgd, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> config = ddpgd.Config(data="synthetic", hidden=(16,), steps=20, run_dir=folder + "/first", quiet=True)
    >>> params = ddpgd.load_params(ddpgd.train(config)["run_dir"])
    >>> {name: array.shape for name, array in params.items()}
    {'dense1.weight': (784, 16), 'dense1.bias': (16,), 'dense2.weight': (16, 10), 'dense2.bias': (10,)}
    """
    from ddpgd.config.schema import from_table
    from ddpgd.run import build, checkpoint, resharding
    from ddpgd.run.stderr import say

    _, saved = checkpoint.find(Path(run), say)
    layout = build.layout(from_table(saved.config), saved.facts["image_shape"])
    vector = resharding.params(Alone(), layout, saved.arrays)
    return {tensor.name: tensor.view(vector).copy() for tensor in layout.tensors}


def exchange(
    comm: "MPI.Intracomm",
    size: int,
    reduce: Literal["ordered", "fast"] = "ordered",
    wire: str = "float32",
    error_feedback: bool = False,
) -> Exchange:
    """Makes the object that sums gradients over ranks, for a training loop of your own with mpi4py.

    Every rank calls it, with the same arguments. `close()` frees its communicators.

    Args:
        comm: An mpi4py communicator, of which the exchange uses a duplicate.
        size: Elements of the gradient, float32 in host memory; 0: statistics alone.
        reduce: "ordered" gives the same bits on any number of ranks; "fast" uses MPI_Allreduce.
        wire: Form of gradients: "float32", or a row of `ddpgd.comm.wires.FORMATS` ("float16", "bfloat16", "int8"), which
            lose something and need "ordered".
        error_feedback: Add each step's encoding error to the next gradient.

    Returns:
        An `Exchange`; its `sum(num_micro_batches, gradient)` returns grads (size,) and `StepStats` sums.

    Raises:
        InputError: An argument is wrong.

    >>> import ddpgd, numpy
    >>> from mpi4py import MPI
    >>> exchange = ddpgd.exchange(MPI.COMM_WORLD, size=3)
    >>> def gradient(micro_batch, grads, stats):
    ...     grads[:] = micro_batch
    ...     stats[ddpgd.StepStats.SAMPLES] = 2
    >>> grads, stats = exchange.sum(4, gradient)
    >>> grads.tolist(), float(stats[ddpgd.StepStats.SAMPLES])
    ([6.0, 6.0, 6.0], 8.0)
    >>> exchange.close()
    """
    from ddpgd.comm.transports.mpi_host import MpiHost
    from ddpgd.kernels.reference.backend import Reference
    from ddpgd.run import build_exchange

    check_choice(wire, ("float32", *FORMATS), "exchange: wire")
    check_choice(reduce, ("ordered", "fast"), "exchange: reduce")
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
        raise InputError(f"exchange: size {size!r} must be a whole number of at least 0")
    if wire != "float32" and reduce == "fast":
        raise InputError(f"exchange: reduce 'fast' knows no wire {wire!r}; pass reduce='ordered'")
    ops = Reference()
    codec = build_exchange.codec(wire, ops)
    return Exchange(MpiHost(comm), ops, int(size), codec, reduce, error_feedback=error_feedback)


def _given(config: Config) -> dict[str, Any]:
    """Returns the fields that differ from their defaults, coerced."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    coerced = {
        name: value if value is None or value == "" else coerce(OPTIONS[name], value, f"Config.{name}")
        for name, value in values.items()
        if value is not None
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
