"""Making of the exchanges: from the row of `WIRES` that --wire names to sums of gradients, or of changes of params."""

import math
from collections.abc import Callable

from ddpgd.comm.codec import Codec
from ddpgd.comm.compressor import Setup, Window
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.levels import Levels
from ddpgd.comm.transport import Transport
from ddpgd.comm.wires import WIRES
from ddpgd.config.schema import Config
from ddpgd.data.batches import Batches
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout


def codec(wire: str, backend: Ops) -> Codec:
    """Returns the codec that --wire names."""
    return WIRES[wire].codec(backend)


def of_gradients(
    backend: Ops,
    config: Config,
    transport: Transport,
    layout: Layout,
    batches: Batches,
    join: int,
    levels: Levels | None = None,
) -> Exchange:
    """Returns the exchange that sums gradients, every step; of two levels if its groups are given."""

    def batch_fraction(step: int) -> float:
        return batches.samples(step) / batches.global_batch

    clip_norm = config.clip_norm * batches.global_batch / math.sqrt(transport.world_size)
    setup = _setup(backend, config, transport, layout, batches, batch_fraction)
    return _exchange(config, setup._replace(momentum=momentum_of_wire(config), clip_norm=clip_norm), join, levels)


def of_changes(
    backend: Ops,
    config: Config,
    transport: Transport,
    layout: Layout,
    batches: Batches,
    levels: Levels | None = None,
) -> Exchange:
    """Returns the exchange that sums the changes which each rank made to its params."""
    return _exchange(config, _setup(backend, config, transport, layout, batches, lambda _step: 1.0), 1, levels)


def momentum_of_wire(config: Config) -> float:
    """Returns the momentum that the wire has in the optimizer's stead, which then has none."""
    return config.momentum if WIRES[config.wire].takes_momentum and config.optimizer == "momentum" else 0.0


def _setup(
    backend: Ops,
    config: Config,
    transport: Transport,
    layout: Layout,
    batches: Batches,
    batch_fraction: Callable[[int], float],
) -> Setup:
    return Setup(
        transport,
        backend,
        layout.size,
        [Window(tensor.start, tensor.shape) for tensor in layout.tensors],
        batch_fraction,
        batches.epoch,
        config.seed,
        {name: getattr(config, name) for name in WIRES[config.wire].options},
    )


def _exchange(config: Config, setup: Setup, join: int, levels: Levels | None) -> Exchange:
    wire = WIRES[config.wire]
    return Exchange(
        setup.transport,
        setup.ops,
        setup.size,
        wire.codec(setup.ops),
        reduce=config.reduce,
        join=join,
        error_feedback=config.error_feedback,
        seed=config.seed,
        compressor=wire.make(setup) if wire.make else None,
        levels=levels,
    )
