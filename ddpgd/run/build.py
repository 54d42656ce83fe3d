"""The parts of a run, made from its configuration: the only module that chooses them."""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.compressor import NoExchange
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.levels import Levels
from ddpgd.comm.sharding import Replicated, Sharded
from ddpgd.comm.transport import Transport
from ddpgd.comm.wires import WIRES
from ddpgd.config.schema import Config
from ddpgd.data.batches import Batches, Samples
from ddpgd.data.idx import NUM_CLASSES
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.kernels.ops import Array, Ops
from ddpgd.kernels.philox import permutation
from ddpgd.kernels.words import Policy
from ddpgd.model.layers import Layer, dense_layers, network_layout
from ddpgd.model.network import Network
from ddpgd.optim import rules, schedules
from ddpgd.optim.rules import RULES, Optimizer
from ddpgd.optim.schedules import Schedule
from ddpgd.params import Layout, initialise
from ddpgd.run import build_exchange
from ddpgd.training.counters import Counters
from ddpgd.training.evaluate import EVALUATE_ROWS, Evaluate
from ddpgd.training.local_sgd import LocalSgd
from ddpgd.training.state import TrainState
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


def sync(
    backend: Ops,
    config: Config,
    data: Dataset,
    transport: Transport,
    total_steps: int,
    initial_params: NDArray[np.float32] | None = None,
    counters: Counters | None = None,
    levels: Levels | None = None,
) -> Sync:
    """One rank's steps, as --sync asks for; from `initial_params` on the host and `counters`, or from the beginning.

    With `levels`, sums over ranks have two of them.
    """
    cut, tensors = batches(config, data), layout(config, data.image_shape)
    join = _batched_micro_batches(
        backend, config.micro_batch, tensors.size, cut.num_micro_batches(0), transport.world_size
    )
    is_flat, on_cpu = levels is None, backend.name == "numpy"
    is_sharded = build_exchange.is_sharded(config, tensors.size, transport.world_size, is_flat and on_cpu)
    exchange = build_exchange.of_gradients(backend, config, transport, tensors, cut, join, is_sharded, levels)
    shares = (Sharded if is_sharded else Replicated)(exchange.transport, tensors.size)
    counters = counters or Counters()
    cut.prepare(cut.epoch(counters.step))
    vector = initialise(tensors, config.init, config.seed) if initial_params is None else initial_params
    rule = optimizer(backend, config, shares.own.stop - shares.own.start)
    loss_scale = INITIAL_LOSS_SCALE if config.precision == "float16" else 1.0
    state = TrainState.create(backend, vector, counters, shares, rule.state, loss_scale)
    step_through = partial(
        Step,
        backend,
        _network(backend, config, data, join, cut, transport.world_size),
        Samples(backend.from_host(data.train_images), backend.from_host(data.train_labels)),
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
        (state.sharded if is_sharded else state.replicated).update(_named("optimizer.", state.optimizer))
        state.per_rank = _named("residual.", exchange.residuals)
        return synced_step
    alone = Exchange(transport, backend, tensors.size, join=join, compressor=NoExchange())
    changes = build_exchange.of_changes(backend, config, transport, tensors, cut, levels)
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


def _network(backend: Ops, config: Config, data: Dataset, join: int, cut: Batches, world_size: int) -> Network:
    """The network, with room for what a rank trains or tests at once."""
    batched_tests = _batched_tests(backend, data, world_size) * EVALUATE_ROWS
    test_rows = min(batched_tests, max(EVALUATE_ROWS, len(data.test_labels)))
    train_rows = min(join * config.micro_batch, cut.samples(0))
    return model(backend, config, data.image_shape, max(train_rows, test_rows))


def evaluation(backend: Ops, step: Sync, data: Dataset, transport: Transport) -> Evaluate:
    """Evaluation on the test samples, in the buffers of `step`'s network."""
    samples = Samples(backend.from_host(data.test_images), backend.from_host(data.test_labels))
    return Evaluate(backend, step.model, samples, transport, _batched_tests(backend, data, transport.world_size))


def _batched_tests(backend: Ops, data: Dataset, world_size: int) -> int:
    return _batched_micro_batches(
        backend, EVALUATE_ROWS, 0, math.ceil(len(data.test_labels) / EVALUATE_ROWS), world_size
    )


def _batched_micro_batches(backend: Ops, micro_batch: int, size: int, num_micro_batches: int, world_size: int) -> int:
    """Number of micro-batches that a rank computes side by side: a power of two, not more than it ever has."""
    share = max(1, math.ceil(num_micro_batches / world_size))
    return min(backend.batched_micro_batches(micro_batch, size), 1 << (share - 1).bit_length())


def sizes(config: Config, image_shape: tuple[int, int]) -> tuple[int, ...]:
    """The widths of all layers, inputs and classes included."""
    rows, cols = image_shape
    return (rows * cols, *config.hidden, NUM_CLASSES)


def layers(config: Config, image_shape: tuple[int, int]) -> tuple[Layer, ...]:
    """The network's layers."""
    return dense_layers(sizes(config, image_shape), config.activation)


def layout(config: Config, image_shape: tuple[int, int]) -> Layout:
    """The layout of the network's tensors in a vector."""
    return network_layout(layers(config, image_shape))


def model(backend: Ops, config: Config, image_shape: tuple[int, int], max_rows: int) -> Network:
    """The network, with room for `max_rows` samples."""
    return Network(backend, layers(config, image_shape), config.loss, max_rows)


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
