"""The parts of a run, made from its configuration: the only module that chooses them.

`SYNCS` has a row for each value of --sync.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.compressor import NoExchange
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.grid import Grid, Shape, split
from ddpgd.comm.levels import Levels
from ddpgd.comm.replica import Replica
from ddpgd.comm.sharding import Replicated, Sharded
from ddpgd.comm.transport import Transport
from ddpgd.config.schema import Config, global_batch
from ddpgd.data.batches import Batches
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import permutation
from ddpgd.model.layers import network_layout
from ddpgd.optim import rules
from ddpgd.params import initialise
from ddpgd.run import build_exchange, build_federated, build_network, build_parts, build_passes
from ddpgd.run.work import Work, of_steps
from ddpgd.training.convergence import Criteria
from ddpgd.training.counters import Counters
from ddpgd.training.intervals import Intervals
from ddpgd.training.local_sgd import LocalSgd
from ddpgd.training.protocols import Sync
from ddpgd.training.state import Held
from ddpgd.training.step import Step


def grid(config: Config, transport: Transport) -> Grid:
    """The groups of this rank among all of `transport`; every rank calls it. InputError: they do not form a grid."""
    return split(transport, build_network.grid_shape(config, transport.world_size))


class SyncBuilder(NamedTuple):
    """A row of `SYNCS`.

    Attributes:
        make: Makes a rank's sync; its arguments are those of `sync`.
        batches: Returns the samples of each step.
        work: Returns the words on a step.
    """

    make: Callable[..., Sync]
    batches: Callable[[Config, Dataset], Batches]
    work: Callable[[Config, Shape, int], Work]


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
    vector = initial_params
    if vector is None:
        vector = initialise(build_network.layout(config, data.image_shape), config.init, config.seed)
    given = backend, config, data, grid, total_steps, vector, counters or Counters()
    return SYNCS[config.sync].make(*given, levels, cuts)


def _steps(
    backend: Ops,
    config: Config,
    data: Dataset,
    grid: Grid,
    total_steps: int,
    initial_params: NDArray[np.float32],
    counters: Counters,
    levels: Levels | None,
    cuts: Sequence[int],
) -> Sync:
    """Steps whose gradients are summed, every one, or up to local steps."""
    cut, whole, num_replicas = batches(config, data), build_network.layout(config, data.image_shape), grid.shape.data
    own_layers = build_network.layers(config, data.image_shape, grid.shape, grid.place, grid.tensor)
    part = network_layout(own_layers)
    join = build_passes.batched_micro_batches(
        backend, config.micro_batch, part.size, cut.num_micro_batches(0), num_replicas
    )
    is_flat, on_cpu = levels is None, backend.name == "numpy"
    shards_of = partial(build_exchange.is_sharded, config, world_size=num_replicas, on_cpu=is_flat and on_cpu)
    is_sharded = shards_of(part.size)
    held = build_network.held(config, data.image_shape, grid.shape, shards_of)
    replica = _replica(backend, grid, held)
    owned = build_network.owned(config, part, num_replicas)
    parts = is_sharded, levels, replica, cuts, owned
    exchange = build_exchange.of_gradients(backend, config, grid.data, part, cut, join, *parts)
    cut.prepare(cut.epoch(counters.step))
    shares = Sharded(exchange.transport, owned) if is_sharded else Replicated(exchange.transport, part.size)
    rule = build_parts.optimizer(backend, config, part, shares.own)
    state = build_parts.state(backend, config, _part(initial_params, held, grid), counters, shares, held, rule)
    step_through = partial(
        Step,
        backend,
        build_passes.passes(backend, config, data, grid, own_layers, join, cut.samples(0)),
        build_passes.samples(backend, config, grid, data.train_images, data.train_labels, data.image_shape),
        cut,
        optimizer=rule,
        schedule=build_parts.learning_rates(config, total_steps),
        state=state,
        policy=build_parts.policy(config, cut.global_batch),
        goes_on_after_halt=config.non_finite == "skip",
        augmentation=build_passes.augmentation(config, grid, data.image_shape),
        max_norm=config.max_norm,
    )
    synced_step = step_through(exchange=exchange)
    if config.sync == "every-step":
        state.replicated = build_parts.wire_state("wire.", exchange)
        state.divided = build_parts.named("optimizer.", state.optimizer)
        state.per_rank = build_parts.named("residual.", exchange.residuals)
        return synced_step
    alone = Exchange(grid.world, backend, whole.size, join=join, compressor=NoExchange())
    changes = build_exchange.of_changes(backend, config, grid.world, whole, cut, levels)
    return _local_sgd(backend, config, synced_step, step_through(exchange=alone), changes, total_steps)


def _part(vector: NDArray[np.float32], held: Held, grid: Grid) -> NDArray[np.float32]:
    """Returns the part that this rank has of a vector of the whole network."""
    return np.concatenate([vector[span] for span in held.params[grid.world.rank]])


def _local_sgd(
    backend: Ops, config: Config, synced_step: Step, local_step: Step, changes: Exchange, total_steps: int
) -> LocalSgd:
    """Local steps, whose optimizer vectors are each rank's own; `changes` combines what they did to the params."""
    rule = "nesterov" if config.outer_momentum else "sgd"
    outer = rules.make(rule, backend, changes.size, 0.0, momentum=config.outer_momentum)
    state = synced_step.state
    state.replicated = build_parts.wire_state("outer.wire.", changes) | build_parts.named("outer.", outer.state)
    state.per_rank = build_parts.named("optimizer.", state.optimizer) | build_parts.named(
        "residual.outer.", changes.residuals
    )
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


def _replica(backend: Ops, grid: Grid, held: Held) -> Replica | None:
    """The ranks that hold a copy of the params with this one; None: it has all of them."""
    if grid.shape.replica == 1:
        return None
    has_loss = grid.place.tensor == 0 and grid.place.pipeline == grid.shape.pipeline - 1
    groups = grid.tensor, grid.pipeline
    return Replica(backend, grid.replica, held.params[grid.world.rank], held.size, has_loss, groups)


def batches(config: Config, data: Dataset) -> Batches:
    """The samples of each step and each micro-batch; with --sync federated, the clients of each round."""
    return SYNCS[config.sync].batches(config, data)


def work(config: Config, shape: Shape, num_samples: int) -> Work:
    """The words on a step."""
    return SYNCS[config.sync].work(config, shape, num_samples)


def pace(config: Config, data: Dataset, steps_done: int) -> Intervals:
    """The run's length and rhythm. InputError: it would end before it begins, or before its warm-up does."""
    steps_per_epoch = batches(config, data).steps_per_epoch
    total_steps = config.steps or (config.epochs or 1) * steps_per_epoch
    if config.warmup >= total_steps:
        raise InputError(
            f"--warmup {config.warmup}: the run has {total_steps} steps; type --warmup {total_steps - 1} or less"
        )
    if total_steps < steps_done:
        unit = "rounds" if config.rounds else "steps"
        raise InputError(
            f"a run of {total_steps} {unit}: the checkpoint has done {steps_done} already; type --{unit} {steps_done} or more"
        )
    return Intervals(
        total_steps=total_steps,
        log_every=config.log_every,
        evaluate_every=config.evaluate_every or steps_per_epoch,
        checkpoint_every=config.checkpoint_every,
        steps_per_epoch=steps_per_epoch,
        criteria=Criteria(config.until_accuracy, config.patience, config.until_grad_norm, config.until_loss_fall),
        plateau=build_parts.plateau(config),
    )


def last_start(config: Config, total_steps: int) -> int:
    """Returns how many steps are done where the last step, or round of local steps, of a run begins."""
    if config.sync != "local" or total_steps <= config.local_after:
        return total_steps - 1
    return total_steps - 1 - (total_steps - 1 - config.local_after) % config.local_steps


def _order(seed: int, num_samples: int, epoch: int) -> NDArray[np.int64]:
    return permutation(seed, epoch, num_samples)


def _batches(config: Config, data: Dataset) -> Batches:
    num_samples, batch = len(data.train_labels), global_batch(config)
    order = partial(_order, config.seed, num_samples)
    steps_per_epoch = math.ceil(num_samples / batch)
    num_epochs = math.ceil(config.steps / steps_per_epoch) if config.steps else config.epochs or 1
    return Batches(num_samples, batch, config.micro_batch, order, num_epochs)


SYNCS = {
    "every-step": SyncBuilder(_steps, _batches, of_steps),
    "local": SyncBuilder(_steps, _batches, of_steps),
    "federated": SyncBuilder(build_federated.sync, build_federated.batches, build_federated.work),
}
"""The choices of --sync."""
