"""Evaluate a checkpoint's network, and compute the probabilities it gives to images."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ddpgd.comm.transport import Alone, Transport
from ddpgd.config.schema import from_table
from ddpgd.data.batches import Samples
from ddpgd.data.mnist import Dataset
from ddpgd.data.pooling import pooled
from ddpgd.errors import InputError
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CURSOR_WORDS
from ddpgd.run import resharding
from ddpgd.run.build_network import model
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.training.evaluate import EVALUATE_ROWS, Evaluate
from ddpgd.training.passes import WholeNetwork


def evaluate(saved: Checkpoint, data: Dataset, world: Transport) -> tuple[float, float]:
    """Returns test loss mean and test accuracy of a checkpoint, over all ranks of `world`; rank 0 has its arrays.

    Raises:
        InputError: the data's images have another shape than those of the checkpoint.
    """
    if list(data.image_shape) != saved.facts["image_shape"]:
        wanted = "x".join(map(str, saved.facts["image_shape"]))
        raise InputError(
            f"{data.source}: images are not {wanted}, as those of this checkpoint; name other data by --data"
        )
    with threadpool_limits(1, user_api="blas"), np.errstate(all="ignore"):
        backend = Reference()
        config = from_table(saved.config)
        network = model(backend, config, data.image_shape, EVALUATE_ROWS)
        params = resharding.params(world, network.layout, saved.arrays)
        inputs = pooled(data.test_images, data.image_shape, config.input_pool)
        passes, samples = WholeNetwork(backend, network), Samples(inputs, data.test_labels)
        return Evaluate(backend, passes, samples, world)(params, params)


def probabilities(saved: Checkpoint, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns class probabilities, float64 (num_images, C), for `images`, uint8 (num_images, K)."""
    num_rows, config, shape = len(images), from_table(saved.config), saved.facts["image_shape"]
    network = model(Reference(), config, shape, num_rows)
    params = resharding.params(Alone(), network.layout, saved.arrays)
    no_labels, cursor = np.zeros(num_rows, np.uint8), np.zeros(CURSOR_WORDS, np.int64)
    network.load(pooled(images, shape, config.input_pool), no_labels, np.arange(num_rows), cursor, 0, num_rows)
    logits = network.forward(params, params, num_rows, num_rows).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def check_same_data(path: Path, saved: Checkpoint, data: Dataset) -> None:
    """Raises InputError if `data` are not those that the checkpoint was trained on."""
    if saved.facts["data_sha256"] != data.sha256:
        raise InputError(f"{data.source}: not the data that {path} was trained on; name those with --data")


def class_names(saved: Checkpoint) -> tuple[str, ...]:
    """Return the names of the classes that a checkpoint's network knows; digits for checkpoints without names."""
    names = tuple(saved.facts.get("class_names", ()))
    return (names + Dataset.class_names[len(names) :])[: len(Dataset.class_names)]
