"""Making of the exchanges: from the row of `WIRES` that --wire names to sums of gradients, or of changes of params."""

import math
from collections.abc import Callable, Sequence

from ddpgd.comm import traffic
from ddpgd.comm.codec import Codec
from ddpgd.comm.compressor import Setup, Window
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.levels import Levels
from ddpgd.comm.replica import Replica
from ddpgd.comm.transport import Transport
from ddpgd.comm.wires import WIRES, Kind
from ddpgd.config.schema import Config
from ddpgd.data.batches import Batches
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout


def codec(wire: str, backend: Ops) -> Codec:
    """Returns the codec that --wire names."""
    return WIRES[wire].codec(backend)


def is_sharded(config: Config, size: int, world_size: int, on_cpu: bool) -> bool:
    """Returns whether each rank holds and updates a part of the optimizer of `size` elements.

    "auto": where ranks sum segments in any case, on CPUs, and do not outlive each other. On GPUs it is not yet measured.
    """
    if config.shard_optimizer != "auto":
        return config.shard_optimizer == "on"
    in_segments = (
        config.reduce == "ordered" and WIRES[config.wire].kind is Kind.EXACT and not traffic.is_one_shot(size, 1, True)
    )
    return in_segments and config.sync == "every-step" and on_cpu and world_size > 1 and not config.elastic


def of_gradients(
    backend: Ops,
    config: Config,
    transport: Transport,
    layout: Layout,
    batches: Batches,
    join: int,
    sharded: bool = False,
    levels: Levels | None = None,
    replica: Replica | None = None,
    cuts: Sequence[int] = (),
    owned: Sequence[slice] = (),
) -> Exchange:
    """Returns the exchange that sums gradients, every step; of two levels if its groups are given, in buckets with `cuts`.

    `transport`: the ranks that have the same `layout`. `replica`: those among which the params are divided. `owned`: where
    `sharded`, the segments of ranks.
    """

    def batch_fraction(step: int) -> float:
        return batches.samples(step) / batches.global_batch

    clip_norm = config.clip_norm * batches.global_batch / math.sqrt(transport.world_size)
    setup = _setup(backend, config, transport, layout, batches, batch_fraction)
    setup = setup._replace(momentum=momentum_of_wire(config), clip_norm=clip_norm)
    return _exchange(config, setup, join, sharded, levels, replica, cuts, owned)


def of_changes(
    backend: Ops,
    config: Config,
    transport: Transport,
    layout: Layout,
    batches: Batches,
    levels: Levels | None = None,
) -> Exchange:
    """Returns the exchange that sums the changes which each rank made to its params."""
    return _exchange(config, _setup(backend, config, transport, layout, batches, lambda _step: 1.0), 1, False, levels)


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


def _exchange(
    config: Config,
    setup: Setup,
    join: int,
    sharded: bool,
    levels: Levels | None,
    replica: Replica | None = None,
    cuts: Sequence[int] = (),
    owned: Sequence[slice] = (),
) -> Exchange:
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
        sharded=sharded and levels is None,
        replica=replica,
        cuts=cuts,
        owned=owned,
    )
