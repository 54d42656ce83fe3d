"""From --wire to what sums gradients, or changes of params."""

import math
from collections.abc import Callable

from ddpgd.comm.codec import BlockScaled, Codec, Float32
from ddpgd.comm.compressor import Compressor
from ddpgd.comm.compressors.power_sgd import PowerSgd, Window
from ddpgd.comm.compressors.top_k import TopK
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.config.schema import Config
from ddpgd.data.batches import Batches
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout

COMPRESSORS = ("topk", "powersgd")


def codec(wire: str, backend: Ops) -> Codec:
    """The dense form that --wire names."""
    return Float32() if wire == "float32" else BlockScaled(backend, wire)


def of_gradients(
    backend: Ops, config: Config, transport: Transport, layout: Layout, batches: Batches, join: int
) -> Exchange:
    """What sums gradients, every step."""

    def share(step: int) -> float:
        return batches.samples(step) / batches.global_batch

    clip_norm = config.clip_norm * batches.global_batch / math.sqrt(transport.world_size)
    made = _compressor(backend, config, transport, layout, batches, share, momentum_of_wire(config), clip_norm)
    return _exchange(backend, config, transport, layout, join, made)


def of_changes(backend: Ops, config: Config, transport: Transport, layout: Layout, batches: Batches) -> Exchange:
    """What sums the changes of params that ranks made alone."""
    made = _compressor(backend, config, transport, layout, batches, lambda _step: 1.0, 0.0, 0.0)
    return _exchange(backend, config, transport, layout, 1, made)


def momentum_of_wire(config: Config) -> float:
    """The momentum that the wire takes over from the optimizer, which then has none."""
    return config.momentum if config.wire == "topk" and config.optimizer == "momentum" else 0.0


def _exchange(
    backend: Ops, config: Config, transport: Transport, layout: Layout, join: int, compressor: Compressor | None
) -> Exchange:
    return Exchange(
        transport,
        backend,
        layout.size,
        Float32() if compressor else codec(config.wire, backend),
        reduce=config.reduce,
        join=join,
        error_feedback=config.error_feedback,
        seed=config.seed,
        compressor=compressor,
    )


def _compressor(
    backend: Ops,
    config: Config,
    transport: Transport,
    layout: Layout,
    batches: Batches,
    share: Callable[[int], float],
    momentum: float,
    clip_norm: float,
) -> Compressor | None:
    if config.wire == "powersgd":
        windows = [Window(tensor.start, tensor.shape) for tensor in layout.tensors]
        return PowerSgd(transport, backend, layout.size, windows, config.powersgd_rank, share, config.seed)
    if config.wire == "topk":

        def density(step: int) -> float:
            """From 1 down to --topk-density, by one factor an epoch."""
            warm = min(1.0, (batches.epoch(step) + 1) / (config.topk_warmup + 1))
            return float(config.topk_density**warm)

        own = transport.duplicate()
        return TopK(own, backend, layout.size, density, share, momentum, config.topk_masking, clip_norm)
    return None
