"""The parts of a run, made from its configuration: the only module that chooses them."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.compressor import NoExchange
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.grid import Grid, split
from ddpgd.comm.levels import Levels
from ddpgd.comm.replica import Replica
from ddpgd.comm.sharding import Replicated, Sharded
from ddpgd.comm.transport import PointToPoint, Transport
from ddpgd.comm.wires import WIRES
from ddpgd.config.schema import Config
from ddpgd.data.batches import Batches, Samples
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.kernels.ops import Array, Ops
from ddpgd.kernels.philox import permutation
from ddpgd.kernels.words import Policy
from ddpgd.model.layers import Layer, network_layout
from ddpgd.model.network import Network
from ddpgd.model.tensor_parallel import Shards
from ddpgd.optim import rules, schedules
from ddpgd.optim.rules import RULES, Optimizer
from ddpgd.optim.schedules import Schedule
from ddpgd.params import initialise
from ddpgd.run import build_exchange, build_network
from ddpgd.training.counters import Counters
from ddpgd.training.evaluate import EVALUATE_ROWS, Evaluate
from ddpgd.training.local_sgd import LocalSgd
from ddpgd.training.passes import Passes, WholeNetwork
from ddpgd.training.pipeline import Pipeline
from ddpgd.training.state import Held, TrainState
from ddpgd.training.step import Step
from ddpgd.training.trainer import Intervals, Sync

INITIAL_LOSS_SCALE = 2.0**12
LARGEST_LOSS_SCALE = 2.0**15
"""The gradient of one sample's loss by its logits lies in -1 to 1, and float16 ends at 65,504."""
LOSS_SCALE_GROWTH_STEPS = 1000


def policy(config: Config) -> Policy:
    """The rules of a step's decision. Only float16 overflows where float32 does not: its loss scale adapts itself.

    With a wire that takes the momentum, each rank clips what it adds.
    Micikevicius et al., "Mixed precision training", 2018.
    """
    growth_interval = LOSS_SCALE_GROWTH_STEPS if config.precision == "float16" else 0
    clip_norm = 0.0 if WIRES[config.wire].takes_momentum and config.sync == "every-step" else config.clip_norm
    return Policy(global_batch(config), clip_norm, growth_interval, LARGEST_LOSS_SCALE)


def grid(config: Config, transport: Transport) -> Grid:
    """The groups of this rank among all of `transport`; every rank calls it. InputError: they do not form a grid."""
    return split(transport, build_network.grid_shape(config, transport.world_size))


def sync(
    backend: Ops,
    config: Config,
    data: Dataset,
    grid: Grid,
    total_steps: int,
    initial_params: NDArray[np.float32] | None = None,
    counters: Counters | None = None,
    levels: Levels | None = None,
    cuts: Sequence[int] = (),
) -> Sync:
    """One rank's steps, as --sync asks for; from `initial_params` on the host and `counters`, or from the beginning.

    Args:
        backend: Where the rank computes.
        config: What is computed.
        data: The samples.
        grid: The groups of the rank; every rank calls this.
        total_steps: Those of the whole run.
        initial_params: Of the whole network.
        counters: Those of the run before.
        levels: The groups of sums of two levels.
        cuts: Starts of buckets of the gradient; see `Exchange`.
    """
    cut, whole, num_replicas = batches(config, data), build_network.layout(config, data.image_shape), grid.shape.data
    own_layers = build_network.layers(config, data.image_shape, grid.shape, grid.place, grid.tensor)
    part = network_layout(own_layers)
    join = _batched_micro_batches(backend, config.micro_batch, part.size, cut.num_micro_batches(0), num_replicas)
    is_flat, on_cpu = levels is None, backend.name == "numpy"
    is_sharded = build_exchange.is_sharded(config, part.size, num_replicas, is_flat and on_cpu)
    held = build_network.held(config, data.image_shape, grid.shape, is_sharded)
    replica = _replica(backend, grid, held)
    parts = is_sharded, levels, replica, cuts
    exchange = build_exchange.of_gradients(backend, config, grid.data, part, cut, join, *parts)
    counters = counters or Counters()
    cut.prepare(cut.epoch(counters.step))
    vector = initialise(whole, config.init, config.seed) if initial_params is None else initial_params
    own_params = np.concatenate([vector[span] for span in held.params[grid.world.rank]])
    shares = (Sharded if is_sharded else Replicated)(exchange.transport, part.size)
    rule = optimizer(backend, config, shares.own.stop - shares.own.start)
    loss_scale = INITIAL_LOSS_SCALE if config.precision == "float16" else 1.0
    state = TrainState.create(backend, own_params, counters, shares, held, rule.state, loss_scale)
    step_through = partial(
        Step,
        backend,
        _passes(backend, config, data, grid, own_layers, join, cut),
        _samples(backend, grid, data.train_images, data.train_labels),
        cut,
        optimizer=rule,
        schedule=learning_rates(config, total_steps),
        state=state,
        policy=policy(config),
        goes_on_after_halt=config.non_finite == "skip",
    )
    synced_step = step_through(exchange=exchange)
    if config.sync == "every-step":
        state.replicated = _wire_state("wire.", exchange)
        state.divided = _named("optimizer.", state.optimizer)
        state.per_rank = _named("residual.", exchange.residuals)
        return synced_step
    alone = Exchange(grid.world, backend, whole.size, join=join, compressor=NoExchange())
    changes = build_exchange.of_changes(backend, config, grid.world, whole, cut, levels)
    return _local_sgd(backend, config, synced_step, step_through(exchange=alone), changes, total_steps)


def _local_sgd(
    backend: Ops, config: Config, synced_step: Step, local_step: Step, changes: Exchange, total_steps: int
) -> LocalSgd:
    """Local steps, whose optimizer vectors are each rank's own; `changes` combines what they did to the params."""
    rule = "nesterov" if config.outer_momentum else "sgd"
    outer = rules.make(rule, backend, changes.size, 0.0, momentum=config.outer_momentum)
    state = synced_step.state
    state.replicated = _wire_state("outer.wire.", changes) | _named("outer.", outer.state)
    state.per_rank = _named("optimizer.", state.optimizer) | _named("residual.outer.", changes.residuals)
    return LocalSgd(
        backend,
        synced_step,
        local_step,
        changes,
        outer,
        outer_lr=config.outer_lr,
        local_steps=config.local_steps,
        local_after=config.local_after,
        total_steps=total_steps,
    )


def _named(prefix: str, vectors: Mapping[str, Array]) -> dict[str, Array]:
    """Vectors by their names in checkpoints."""
    return {f"{prefix}{name}": vector for name, vector in vectors.items()}


def _wire_state(prefix: str, exchange: Exchange) -> dict[str, Array]:
    """The vectors of a compressor that are equal on all ranks, by their names in checkpoints."""
    compressor = exchange.compressor
    return _named(prefix, compressor.replicated if compressor else {})


def _passes(
    backend: Ops, config: Config, data: Dataset, grid: Grid, layers: Sequence[Layer], join: int, cut: Batches
) -> Passes:
    """The passes of a rank, with room for what it trains or tests at once."""
    batched_tests = _batched_tests(backend, data, grid.shape.data) * EVALUATE_ROWS
    test_rows = min(batched_tests, max(EVALUATE_ROWS, len(data.test_labels)))
    train_rows = min(join * config.micro_batch, cut.samples(0))
    rows = max(train_rows, test_rows)
    network = Network(backend, layers, config.loss, rows, has_inputs=grid.place.pipeline == 0)
    if grid.shape.pipeline == 1:
        return WholeNetwork(backend, network, grid.tensor.needs_host)
    if not isinstance(grid.pipeline, PointToPoint):
        name = grid.pipeline.name
        raise InputError(
            f"--pipeline: over {name} a rank cannot send while it computes; type --backend numpy, or drop it"
        )
    shards = build_network.shards_of(config, grid.shape, grid.place)
    columns = partial(_own_columns, shards)
    return Pipeline(backend, network, grid.pipeline, config.pipeline_schedule, columns)


def _own_columns(shards: Shards, width: int) -> slice:
    return shards.columns_of_ranks(width)[shards.rank]


def _samples(backend: Ops, grid: Grid, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Samples:
    """The samples where the rank computes; without their pixels, in stages of a pipeline that do not read them."""
    num_pixels = images.shape[1] if grid.place.pipeline == 0 else 0
    return Samples(backend.from_host(images[:, :num_pixels]), backend.from_host(labels))


def _replica(backend: Ops, grid: Grid, held: Held) -> Replica | None:
    """The ranks that hold a copy of the params with this one; None: it has all of them."""
    if grid.shape.replica == 1:
        return None
    has_loss = grid.place.tensor == 0 and grid.place.pipeline == grid.shape.pipeline - 1
    groups = grid.tensor, grid.pipeline
    return Replica(backend, grid.replica, held.params[grid.world.rank], held.size, has_loss, groups)


def evaluation(backend: Ops, grid: Grid, step: Sync, data: Dataset) -> Evaluate:
    """Evaluation on the test samples, in the buffers of `step`'s network."""
    samples = _samples(backend, grid, data.test_images, data.test_labels)
    join = _batched_tests(backend, data, grid.shape.data)
    return Evaluate(backend, step.passes, samples, grid.data, join, grid.pipeline)


def _batched_tests(backend: Ops, data: Dataset, num_replicas: int) -> int:
    return _batched_micro_batches(
        backend, EVALUATE_ROWS, 0, math.ceil(len(data.test_labels) / EVALUATE_ROWS), num_replicas
    )


def _batched_micro_batches(backend: Ops, micro_batch: int, size: int, num_micro_batches: int, num_replicas: int) -> int:
    """Number of micro-batches that a rank computes side by side: a power of two, not more than it ever has."""
    share = max(1, math.ceil(num_micro_batches / num_replicas))
    return min(backend.batched_micro_batches(micro_batch, size), 1 << (share - 1).bit_length())


def optimizer(backend: Ops, config: Config, size: int) -> Optimizer:
    """The update rule; plain SGD where the wire has the momentum, with the weight decay that momentum would multiply."""
    if momentum := build_exchange.momentum_of_wire(config):
        return rules.make("sgd", backend, size, config.weight_decay / (1 - momentum))
    options = {name: getattr(config, name) for name in RULES[config.optimizer].options}
    return rules.make(config.optimizer, backend, size, config.weight_decay, **options)


def learning_rates(config: Config, total_steps: int) -> Schedule:
    """step -> learning rate, scaled to the global batch where that is asked for."""
    assert config.lr is not None, "resolve() was not called"
    peak_lr = config.lr * schedules.scale(config.scale_lr, global_batch(config))
    return schedules.make(config.schedule, peak_lr, total_steps, config.warmup)


def batches(config: Config, data: Dataset) -> Batches:
    """The samples of each step and each micro-batch."""
    num_samples = len(data.train_labels)
    order = partial(_order, config.seed, num_samples)
    steps_per_epoch = math.ceil(num_samples / global_batch(config))
    num_epochs = math.ceil(config.steps / steps_per_epoch) if config.steps else config.epochs or 1
    return Batches(num_samples, global_batch(config), config.micro_batch, order, num_epochs)


def pace(config: Config, data: Dataset, steps_done: int) -> Intervals:
    """The run's length and rhythm. InputError: it would end before it begins, or before its warm-up does."""
    steps_per_epoch = batches(config, data).steps_per_epoch
    total_steps = config.steps or (config.epochs or 1) * steps_per_epoch
    if config.warmup >= total_steps:
        raise InputError(
            f"--warmup {config.warmup}: the run has {total_steps} steps; type --warmup {total_steps - 1} or less"
        )
    if total_steps < steps_done:
        raise InputError(
            f"a run of {total_steps} steps: the checkpoint has done {steps_done} already; type --steps {steps_done} or more"
        )
    return Intervals(
        total_steps=total_steps,
        log_every=config.log_every,
        evaluate_every=config.evaluate_every or steps_per_epoch,
        checkpoint_every=config.checkpoint_every,
        until_accuracy=config.until_accuracy,
    )


def global_batch(config: Config) -> int:
    assert config.global_batch is not None, "resolve() was not called"
    return config.global_batch


def _order(seed: int, num_samples: int, epoch: int) -> NDArray[np.int64]:
    return permutation(seed, epoch, num_samples)
