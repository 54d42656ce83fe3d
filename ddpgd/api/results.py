"""Results of a run, in this process: records, params, and class probabilities of images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddpgd.comm.transport import Alone
from ddpgd.errors import InputError
from ddpgd.run.summary import Summary


def predict(run: str | os.PathLike[str], images: ArrayLike) -> NDArray[np.float64]:
    """Computes class probabilities of images by a checkpoint's network, in this process.

    Args:
        run: A run folder, whose best or newest checkpoint is taken, or a checkpoint file.
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
    from ddpgd.run import checkpoint_search, inference
    from ddpgd.run.stderr import say

    _, saved = checkpoint_search.find_best(Path(run), say)
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
        "grad_norm"; those of an evaluation have "test_loss_mean" and "test_accuracy" (0 to 1), or with
        `validation` instead "validation_loss_mean" and "validation_accuracy". Logged steps have lists of a
        number for each layer: "layer_grad_norms" (of the mean gradient), "layer_param_norms" and "layer_update_ratios" (norm
        of what the update changed, over that of the params); evaluations, for each hidden layer, the share of units that are
        0 for all samples looked at, "layer_dead_shares" (relu), or near a bound for 99 % of them, "layer_saturated_shares".

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


def read_summary(run: str | os.PathLike[str]) -> Summary:
    """Reads the summary of a complete run.

    Args:
        run: A run folder.

    Returns:
        What `train` returned.

    Raises:
        InputError: The folder has no summary, or a damaged one.

    >>> import ddpgd, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> config = ddpgd.Config(data="synthetic", hidden=(16,), steps=20, run_dir=folder + "/first", quiet=True)
    >>> summary = ddpgd.train(config)
    >>> ddpgd.read_summary(summary["run_dir"]) == summary
    True
    """
    from ddpgd.run import summary

    return summary.read_summary(Path(run))


def plot(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    against: Literal["step", "samples", "seconds"] = "step",
) -> None:
    """Draws loss, accuracy, learning rate, gradient norm and throughput of runs over each other; of one run, its layers too.

    Args:
        runs: Run folders.
        out: The picture, a PNG or SVG file.
        against: The horizontal axis: steps, samples computed, or seconds of training.

    Raises:
        InputError: A folder has no records, matplotlib is missing, or the file cannot be written.

    >>> import ddpgd, pathlib, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> config = ddpgd.Config(data="synthetic", hidden=(16,), steps=20, run_dir=folder + "/first", quiet=True)
    >>> ddpgd.plot([ddpgd.train(config)["run_dir"]], folder + "/first.png")
    >>> pathlib.Path(folder, "first.png").exists()
    True
    """
    from ddpgd.run.plots import draw_folders

    if isinstance(runs, str | os.PathLike) or not (runs := list(runs)):
        raise InputError(
            'plot: a list of run folders is wanted; type for example ddpgd.plot(["runs/first"], "plot.png")'
        )
    draw_folders([Path(run) for run in runs], Path(out), against)


def load_params(run: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Loads the params of a checkpoint.

    Args:
        run: A run folder, whose best or newest checkpoint is taken, or a checkpoint file.

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
    from ddpgd.run import build_network, checkpoint_search, resharding
    from ddpgd.run.stderr import say

    _, saved = checkpoint_search.find_best(Path(run), say)
    layout = build_network.layout(from_table(saved.config), saved.facts["image_shape"])
    vector = resharding.params(Alone(), layout, saved.arrays)
    return {name: tensor.copy() for name, tensor in layout.whole_tensors(vector).items()}
