"""Overlap of the exchange with the backward pass: the buckets that --overlap asks for, or that the cost model finds."""

import math
from collections.abc import Callable
from typing import NamedTuple

from ddpgd.comm.buckets import Layer, all_cuts, choose
from ddpgd.comm.cluster import Cluster, Link, latency_s, seconds
from ddpgd.comm.traffic import is_one_shot
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports.capabilities import TRANSPORTS
from ddpgd.comm.wires import WIRES, Kind, Load
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
    config: Config, ops: Ops, transport: Transport, data: Dataset, has_levels: bool, link: Callable[[], Link]
) -> Overlap:
    """Returns the buckets that --overlap means; every rank calls it, and gets the same.

    Args:
        config: The run, resolved.
        ops: The backend.
        transport: The ranks.
        data: The samples.
        has_levels: True if the sum has two levels.
        link: Measures the link between all ranks; every rank calls it.
    """
    if config.overlap == "off" or transport.world_size == 1:
        return Overlap()
    cut, size = build.batches(config, data), build_network.layout(config, data.image_shape).size
    load = Load(size, cut.num_micro_batches(0), transport.world_size)
    own = math.ceil(load.num_micro_batches / load.world_size)
    num_rows = min(own, ops.batched_micro_batches(config.micro_batch, size)) * config.micro_batch
    layers = layer_costs(config, data.image_shape, min(num_rows, cut.global_batch))
    if why := why_not(config, transport.name, load, layers, has_levels):
        return Overlap(why=why * (config.overlap == "on"))
    if config.overlap == "on":
        return Overlap(all_cuts(layers, size))
    measured = link()
    return Overlap(faster_cuts(config.wire, load, layers, Cluster(load.world_size, measured, measured)))


def layer_costs(config: Config, image_shape: tuple[int, int], num_rows: int) -> list[Layer]:
    """Returns the backward passes of so many rows; the first layer has no gradient of its inputs."""
    network = build_network.layers(config, image_shape)
    starts, rate = layer_starts(network), FLOPS[config.precision]
    return [
        Layer(start, (2 if number == 0 else 4) * num_rows * layer.num_inputs * layer.num_outputs / rate)
        for number, (start, layer) in enumerate(zip(starts, network, strict=True))
    ]


def faster_cuts(wire: str, load: Load, layers: list[Layer], cluster: Cluster) -> tuple[int, ...]:
    """Returns the cuts with the least exposed time, by the cost model."""
    form = WIRES[wire]

    def sum_s(bucket: slice) -> float:
        return seconds([form.of_bucket(load, bucket)], cluster)

    whole = form.of_bucket(load, slice(0, load.size))
    return choose(layers, load.size, sum_s, latency_s(whole, cluster) / whole.rounds).cuts


def why_not(config: Config, transport: str, load: Load, layers: list[Layer], has_levels: bool) -> str:
    """Returns the reason for which nothing can travel beside the backward pass, as a clause; empty: it can."""
    small = is_one_shot(load.size, max(load.pieces), exact=True) or not all_cuts(layers, load.size)
    reasons = {
        f"{transport} does not send while a rank computes": not TRANSPORTS[transport].overlaps,
        "--sync local sends changes of params": config.sync == "local",
        "--reduce fast sums whole vectors": config.reduce == "fast",
        f"--wire {config.wire} would round other values": WIRES[config.wire].kind is not Kind.EXACT,
        "with --shard-optimizer ranks keep their part of the sum": config.shard_optimizer == "on",
        "a sum of two levels travels whole": has_levels,
        "with --tensor or --pipeline ranks have parts of the params": config.tensor * config.pipeline > 1,
        "the gradient is too small": small,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
