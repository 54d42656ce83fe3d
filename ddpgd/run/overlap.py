"""Overlap of the exchange with the backward pass: the buckets that --overlap asks for, or that the cost model finds."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ddpgd.comm.buckets import Layer, all_cuts, fastest, why_whole
from ddpgd.comm.cluster import Cluster, Link
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports.capabilities import TRANSPORTS
from ddpgd.comm.wires import Load
from ddpgd.config.schema import Config
from ddpgd.config.units import plural
from ddpgd.data.mnist import Dataset
from ddpgd.kernels.ops import Ops
from ddpgd.model.layers import layer_starts
from ddpgd.run import build, build_network

FLOPS = {"float32": 2e13, "tf32": 1e14, "float16": 2e14, "bfloat16": 2e14}
"""Floating-point operations per second of a rank's products, by precision. Assumed; not yet measured."""


class Overlap(NamedTuple):
    """The buckets of a run. `cuts`: see `comm.buckets`. `why`: the reason for which there is one, if more were asked for."""

    cuts: tuple[int, ...] = ()
    why: str = ""

    @property
    def text(self) -> str:
        """The words on it in the first lines of a run."""
        number = f", {plural(len(self.cuts) + 1, 'bucket')} beside the backward pass" if self.cuts else ""
        return number or (f", no overlap: {self.why}" if self.why else "")


def plan(
    config: Config,
    ops: Ops,
    transport: Transport,
    data: Dataset,
    nodes: tuple[int, ...],
    link: Callable[[], Link],
) -> Overlap:
    """Returns the buckets that --overlap means; every rank calls it, and gets the same.

    Args:
        config: The run, resolved.
        ops: The backend.
        transport: The ranks.
        data: The samples.
        nodes: The number of ranks of each node, where the sum has two levels; empty: it is flat.
        link: Measures the link between all ranks; every rank calls it.
    """
    if config.overlap == "off" or transport.world_size == 1:
        return Overlap()
    cut, size = build.batches(config, data), build_network.layout(config, data.image_shape).size
    sharded = config.shard_optimizer == "on"
    load = Load(
        size, cut.num_micro_batches(0), transport.world_size, reduce=config.reduce, nodes=nodes, sharded=sharded
    )
    own = math.ceil(load.num_micro_batches / load.world_size)
    num_rows = min(own, ops.batched_micro_batches(config.micro_batch, size)) * config.micro_batch
    layers = layer_costs(config, data.image_shape, min(num_rows, cut.global_batch), FLOPS[config.precision])
    if why := why_not(config, transport.name, load, layers):
        return Overlap(why=why * (config.overlap == "on"))
    if config.overlap == "on":
        return Overlap(all_cuts(layers, size))
    measured = link()
    return Overlap(fastest(config.wire, load, layers, Cluster(load.world_size, measured, measured)).cuts)


def layer_costs(config: Config, image_shape: tuple[int, int], num_rows: int, flops_per_s: float) -> tuple[Layer, ...]:
    """Returns the backward passes of so many rows; the first layer has no gradient of its inputs."""
    network = build_network.layers(config, image_shape)
    return tuple(
        Layer(start, (2 if number == 0 else 4) * num_rows * layer.num_inputs * layer.num_outputs / flops_per_s)
        for number, (start, layer) in enumerate(zip(layer_starts(network), network, strict=True))
    )


def layer_shares(config: Config, image_shape: tuple[int, int]) -> tuple[Layer, ...]:
    """Returns the backward passes of layers in a pass, forward and backward, that takes a second."""
    forward = sum(2 * layer.num_inputs * layer.num_outputs for layer in build_network.layers(config, image_shape))
    backward = sum(layer.backward_s for layer in layer_costs(config, image_shape, 1, 1.0))
    return layer_costs(config, image_shape, 1, forward + backward)


def why_not(config: Config, transport: str, load: Load, layers: Sequence[Layer]) -> str:
    """Returns the reason for which nothing can travel beside the backward pass, as a clause; empty: it can."""
    reasons = {
        f"{transport} does not send while a rank computes": not TRANSPORTS[transport].overlaps,
        f"--sync {config.sync} sends changes of params": config.sync != "every-step",
        "with --tensor or --pipeline ranks have parts of the params": config.tensor * config.pipeline > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "") or why_whole(config.wire, load, layers)
