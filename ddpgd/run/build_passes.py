"""Making of the passes of a rank: of all layers or of a stage, for training and for evaluation."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.grid import Grid
from ddpgd.comm.transport import PointToPoint
from ddpgd.config.schema import Config
from ddpgd.data import augmentations
from ddpgd.data.augmentations import AUGMENTATIONS
from ddpgd.data.batches import Samples
from ddpgd.data.mnist import Dataset
from ddpgd.data.pooling import pooled
from ddpgd.errors import InputError
from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.ops import Ops
from ddpgd.model.layers import Layer
from ddpgd.model.network import LOSSES, Network
from ddpgd.model.shards import Shards
from ddpgd.run import build_network
from ddpgd.training import evaluate
from ddpgd.training.evaluate import Evaluate
from ddpgd.training.passes import Passes, WholeNetwork
from ddpgd.training.pipeline import Pipeline
from ddpgd.training.protocols import Sync
from ddpgd.training.units import UnitProbe


def passes(
    backend: Ops,
    config: Config,
    data: Dataset,
    grid: Grid,
    layers: Sequence[Layer],
    join: int,
    most_samples: int,
    evaluates: bool = True,
) -> Passes:
    """The passes of a rank, with room for what it trains or tests at once; `most_samples`: those of the largest step."""
    train_rows = min(join * config.micro_batch, most_samples)
    rows = max(train_rows, _evaluated_rows(backend, data, grid)) if evaluates else train_rows
    loss_options = [getattr(config, name) for name in LOSSES[config.loss].options]
    network = Network(backend, layers, config.loss, rows, grid.place.pipeline == 0, loss_options)
    if grid.shape.pipeline == 1:
        return WholeNetwork(backend, network, grid.tensor.needs_host)
    if not isinstance(grid.pipeline, PointToPoint):
        name = grid.pipeline.name
        raise InputError(
            f"--pipeline: over {name} a rank cannot send while it computes; type --transport mpi-host, or drop it"
        )
    shards = build_network.shards_of(config, grid.shape, grid.place)
    columns = partial(_own_columns, shards)
    return Pipeline(backend, network, grid.pipeline, config.pipeline_schedule, columns)


def _evaluated_rows(backend: Ops, data: Dataset, grid: Grid) -> int:
    evaluated = max(len(data.test_labels), len(data.validation_labels))
    batched = _batched_evaluations(backend, evaluated, grid.shape.data) * evaluate.EVALUATE_ROWS
    return min(batched, max(evaluate.EVALUATE_ROWS, evaluated))


def _own_columns(shards: Shards, width: int) -> slice:
    return shards.columns_of_ranks(width)[shards.rank]


def samples(
    backend: Ops,
    config: Config,
    grid: Grid,
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    image_shape: tuple[int, int],
) -> Samples:
    """The samples as inputs, where the rank computes; without pixels, in stages of a pipeline that do not read them."""
    inputs = images[:, :0] if grid.place.pipeline else pooled(images, image_shape, config.input_pool)
    return Samples(backend.from_host(inputs), backend.from_host(labels))


def augmentation(config: Config, grid: Grid, image_shape: tuple[int, int]) -> Augmentation | None:
    """The random changes of training images; None: none, or nothing here, in stages of a pipeline that do not read them."""
    if grid.place.pipeline:
        return None
    numbers = {name: getattr(config, name) for name in AUGMENTATIONS[config.augment].options}
    shape = build_network.input_shape(config, image_shape)
    return augmentations.make(config.augment, config.seed, shape, **numbers)


def evaluation(
    backend: Ops,
    config: Config,
    grid: Grid,
    step: Sync,
    image_shape: tuple[int, int],
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    probe: UnitProbe | None = None,
) -> Evaluate:
    """Evaluation on samples that are not trained on, in the buffers of `step`'s network."""
    join = _batched_evaluations(backend, len(labels), grid.shape.data)
    own = samples(backend, config, grid, images, labels, image_shape)
    return Evaluate(backend, step.passes, own, grid.data, join, grid.pipeline, probe=probe)


def _batched_evaluations(backend: Ops, num_samples: int, num_replicas: int) -> int:
    num_micro_batches = math.ceil(num_samples / evaluate.EVALUATE_ROWS)
    return batched_micro_batches(backend, evaluate.EVALUATE_ROWS, 0, num_micro_batches, num_replicas)


def batched_micro_batches(backend: Ops, micro_batch: int, size: int, num_micro_batches: int, num_replicas: int) -> int:
    """Number of micro-batches that a rank computes side by side: a power of two, not more than it ever has."""
    share = max(1, math.ceil(num_micro_batches / num_replicas))
    return min(backend.batched_micro_batches(micro_batch, size), 1 << (share - 1).bit_length())
