"""Making of --sync federated: clients and their samples, their steps, and the exchange of their changes."""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.compressor import NoExchange
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.grid import Grid, Shape
from ddpgd.comm.levels import Levels
from ddpgd.comm.sharding import Replicated
from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config
from ddpgd.data.batches import Batches, Samples
from ddpgd.data.mnist import Dataset
from ddpgd.data.partition import divide
from ddpgd.errors import InputError
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.optim import rules
from ddpgd.optim.rules import RULES
from ddpgd.optim.schedules import Schedule
from ddpgd.params import Layout
from ddpgd.run import build_exchange, build_network, build_parts, build_passes
from ddpgd.run.work import Work, of_rounds
from ddpgd.training.counters import Counters, Record
from ddpgd.training.evaluate import Evaluate
from ddpgd.training.federated.clients import Clients, Proximal
from ddpgd.training.federated.federated import Federated
from ddpgd.training.federated.figures import ClientFigures
from ddpgd.training.federated.lanes import Lanes
from ddpgd.training.federated.privacy import Privacy
from ddpgd.training.federated.rounds import ClientBatches, Rounds
from ddpgd.training.federated.sums import MOST_CLIENTS, Clear, Masked
from ddpgd.training.step import Step


def clients_per_round(config: Config) -> int:
    """Returns the number of clients that train in a round."""
    return max(1, round(config.client_fraction * config.clients))


def parts(config: Config, data: Dataset) -> list[NDArray[np.int64]]:
    """Returns the samples of each client; see `partition.divide`."""
    return divide(config.partition, data.train_labels, config.clients, config.seed)


def batches(config: Config, data: Dataset) -> Batches:
    """Returns rounds as steps: their samples are clients, and an epoch is as many rounds as reach all clients once.

    Raises:
        InputError: The samples cannot be divided as --partition says, or a package is missing.
    """
    parts(config, data)
    count = clients_per_round(config)
    if config.dp_noise and find_spec("dp_accounting") is None:
        raise InputError("--dp-noise needs dp-accounting to tell epsilon; type pip install 'ddpgd[privacy]'")
    if config.secure_aggregation and count > MOST_CLIENTS:
        raise InputError(f"--secure-aggregation: {count:,} clients in a round; type a smaller --client-fraction")
    rounds_per_epoch = -(-config.clients // count)
    return Batches(rounds_per_epoch * count, count, 1, np.arange, num_epochs=0)


def work(config: Config, shape: Shape, num_samples: int) -> Work:  # noqa: ARG001
    """Returns the words on a round."""
    return of_rounds(config, shape, clients_per_round(config))


def sync(
    backend: Ops,
    config: Config,
    data: Dataset,
    grid: Grid,
    total_steps: int,
    initial_params: NDArray[np.float32],
    counters: Counters,
    levels: Levels | None,
    cuts: Sequence[int],  # noqa: ARG001
) -> Federated:
    """Returns rounds of federated averaging on one rank; see `build.sync`."""
    layout, rounds, whole = build_network.layout(config, data.image_shape), _rounds(config, data), batches(config, data)
    schedule = build_parts.learning_rates(config, total_steps)
    samples = build_passes.samples(backend, config, grid, data.train_images, data.train_labels, data.image_shape)
    anchor = backend.zeros((layout.size,), np.float32)
    backend.synchronize()
    given = config, data, grid, rounds, schedule, initial_params, counters, samples, anchor
    clients = _clients(backend, *given, evaluates=True)
    state, own = clients.state, math.ceil(rounds.clients_per_round / grid.world.world_size)
    lanes = Lanes(clients, lambda: _clients(backend.another(), *given), min(own, backend.num_lanes))
    added = (Masked if config.secure_aggregation else Clear)(backend, rounds, layout.size)
    momentum = dict.fromkeys(RULES[config.server_optimizer].options, config.outer_momentum)
    server = rules.make(config.server_optimizer, backend, layout.size, 0.0, **momentum)
    state.replicated = build_parts.named("outer.", server.state)
    return Federated(
        backend,
        lanes,
        whole,
        rounds,
        Exchange(grid.world, backend, added.size, reduce=config.reduce, levels=levels),
        added,
        build_exchange.codec(config.wire, backend),
        _privacy(config, layout),
        _client_figures(backend, config, grid, clients.step, rounds),
        server,
        config.outer_lr,
        schedule,
        equal_weights=config.client_weights == "equal",
    )


def _clients(
    backend: Ops,
    config: Config,
    data: Dataset,
    grid: Grid,
    rounds: Rounds,
    schedule: Schedule,
    initial_params: NDArray[np.float32],
    counters: Counters,
    samples: Samples,
    anchor: Array,
    evaluates: bool = False,
) -> Clients:
    """Returns the local training of clients, with params and an optimizer of its own; in the first lane, evaluations too."""
    layers = build_network.layers(config, data.image_shape, grid.shape, grid.place, grid.tensor)
    layout, shares = build_network.layout(config, data.image_shape), Replicated(grid.world, anchor.size)
    held = build_network.held(config, data.image_shape, grid.shape, lambda _size: False)
    rule = build_parts.optimizer(backend, config, layout, shares.own)
    state = build_parts.state(backend, config, initial_params, counters, shares, held, rule)
    batch = config.client_batch if isinstance(config.client_batch, int) else None
    cut = ClientBatches(rounds, batch, config.micro_batch)
    num_micro_batches = -(-cut.global_batch // cut.micro_batch)
    join = build_passes.batched_micro_batches(backend, cut.micro_batch, anchor.size, num_micro_batches, 1)
    between = Proximal(backend, state.params, anchor, config.proximal) if config.proximal else NoExchange()
    step = Step(
        backend,
        build_passes.passes(backend, config, data, grid, layers, join, cut.global_batch, evaluates),
        samples,
        cut,
        Exchange(Alone(), backend, anchor.size, join=join, compressor=between),
        rule,
        lambda step: schedule(cut.round(step)),
        state,
        build_parts.policy(config, cut.global_batch),
        augmentation=build_passes.augmentation(config, grid, data.image_shape),
        max_norm=config.max_norm,
    )
    return Clients(backend, step, cut, rounds, anchor)


def _client_figures(
    backend: Ops, config: Config, grid: Grid, step: Step, rounds: Rounds
) -> Callable[[Array, Array], Record]:
    """Returns what evaluates the clients, where that is wanted."""
    if config.client_figures == "off":
        return lambda _params, _weights: {}
    own = rounds.parts[grid.world.rank :: grid.world.world_size]
    evaluations = [Evaluate(backend, step.passes, step.samples, Alone(), order=part) for part in own]
    return ClientFigures(evaluations, grid.world)


def _privacy(config: Config, layout: Layout) -> Privacy:
    support = np.zeros(layout.size, np.float32)
    layout.fill(support, {name: np.ones(shape, np.float32) for name, shape in layout.shapes.items()})
    clip, count = config.dp_clip or math.inf, clients_per_round(config)
    return Privacy(clip, config.dp_noise, config.dp_delta, config.clients, count, config.seed, support)


def _rounds(config: Config, data: Dataset) -> Rounds:
    count, own = clients_per_round(config), parts(config, data)
    return Rounds(config.seed, own, count, config.local_epochs, config.drop, config.stragglers)
