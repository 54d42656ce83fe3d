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
from ddpgd.comm.sharding import Replicated, Sharded, Shares
from ddpgd.comm.transport import Transport
from ddpgd.comm.wires import WIRES
from ddpgd.config.schema import Config
from ddpgd.data.batches import Batches
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.kernels.ops import Array, Ops
from ddpgd.kernels.philox import permutation
from ddpgd.kernels.words import Policy
from ddpgd.model.layers import network_layout
from ddpgd.optim import rules, schedules
from ddpgd.optim.rules import RULES, Optimizer
from ddpgd.optim.schedules import Schedule
from ddpgd.params import initialise
from ddpgd.run import build_exchange, build_network, build_passes
from ddpgd.training.counters import Counters
from ddpgd.training.local_sgd import LocalSgd
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
    join = build_passes.batched_micro_batches(
        backend, config.micro_batch, part.size, cut.num_micro_batches(0), num_replicas
    )
    is_flat, on_cpu = levels is None, backend.name == "numpy"
    is_sharded = build_exchange.is_sharded(config, part.size, num_replicas, is_flat and on_cpu)
    held = build_network.held(config, data.image_shape, grid.shape, is_sharded)
    replica = _replica(backend, grid, held)
    parts = is_sharded, levels, replica, cuts
    exchange = build_exchange.of_gradients(backend, config, grid.data, part, cut, join, *parts)
    counters = counters or Counters()
    cut.prepare(cut.epoch(counters.step))
    vector = initialise(whole, config.init, config.seed) if initial_params is None else initial_params
    shares = (Sharded if is_sharded else Replicated)(exchange.transport, part.size)
    rule = optimizer(backend, config, shares.own.stop - shares.own.start)
    state = _state(backend, config, _part(vector, held, grid), counters, shares, held, rule)
    step_through = partial(
        Step,
        backend,
        build_passes.passes(backend, config, data, grid, own_layers, join, cut),
        build_passes.samples(backend, grid, data.train_images, data.train_labels),
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


def _part(vector: NDArray[np.float32], held: Held, grid: Grid) -> NDArray[np.float32]:
    """Returns the part that this rank has of a vector of the whole network."""
    return np.concatenate([vector[span] for span in held.params[grid.world.rank]])


def _state(
    backend: Ops,
    config: Config,
    params: NDArray[np.float32],
    counters: Counters,
    shares: Shares,
    held: Held,
    rule: Optimizer,
) -> TrainState:
    loss_scale = INITIAL_LOSS_SCALE if config.precision == "float16" else 1.0
    return TrainState.create(backend, params, counters, shares, held, rule.state, loss_scale)


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


def _replica(backend: Ops, grid: Grid, held: Held) -> Replica | None:
    """The ranks that hold a copy of the params with this one; None: it has all of them."""
    if grid.shape.replica == 1:
        return None
    has_loss = grid.place.tensor == 0 and grid.place.pipeline == grid.shape.pipeline - 1
    groups = grid.tensor, grid.pipeline
    return Replica(backend, grid.replica, held.params[grid.world.rank], held.size, has_loss, groups)


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
