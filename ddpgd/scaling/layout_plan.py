"""`ddpgd plan --layouts`: every grid of a number of ranks, predicted; what fits a rank's memory, the fastest first.

A stage takes its layers' share of a micro-batch's time, and a rank of a tensor group its shards' share of that; M micro-batches
pass P stages in M + P - 1 turns of the slowest. Messages of layers and stages take their latency and bytes in every turn, sums
of gradients come after. Neighbours share layers, so groups lie inside nodes as far as they fit.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ddpgd.comm.buckets import Layer
from ddpgd.comm.cluster import MESSAGE_SHARE, Cluster, Link, seconds
from ddpgd.comm.grid import Shape
from ddpgd.comm.wires import WIRES, Kind, Load
from ddpgd.config.schema import Config, global_batch
from ddpgd.config.units import bytes_text, parse_bytes, plural, time_text
from ddpgd.errors import InputError
from ddpgd.optim.rules import RULES
from ddpgd.run import build_network
from ddpgd.scaling.cost_model import Costs, in_buckets
from ddpgd.scaling.layouts import RankOf, predict


class LayoutCost(NamedTuple):
    """A layout, predicted. Seconds of a step; bytes of the rank that sends, or holds, most.

    `passes_s`: forward and backward passes with their messages, of which `bubble_s` is the filling and emptying of a pipeline.
    `exchange_s`: sums of gradients, and params of a sharded optimizer.
    """

    shape: Shape
    step_s: float
    passes_s: float
    bubble_s: float
    exchange_s: float
    update_s: float
    sent_bytes: int
    memory_bytes: int


def layouts(
    config: Config,
    image_shape: tuple[int, int],
    costs: Costs,
    cluster: Cluster,
    world_size: int,
    buckets: Sequence[Layer] = (),
) -> list[LayoutCost]:
    """Returns all layouts of so many ranks, the fastest first.

    Args:
        config: Resolved; tensor parallel ranks share its shards.
        image_shape: Of the samples.
        costs: Of one rank that has the whole network.
        cluster: The links.
        world_size: Number of ranks.
        buckets: As `layers` of `cost_model.Work`, for ranks that have all layers.
    """
    found = [
        _cost(config, image_shape, costs, cluster, shape, buckets if shape.replica == 1 else ())
        for shape in shapes(config, world_size)
    ]
    return sorted(found, key=lambda one: one.step_s)


def shapes(config: Config, world_size: int) -> Iterator[Shape]:
    """Yields the grids that so many ranks can form."""
    for tensor in range(1, config.shards + 1):
        for pipeline in range(1, len(config.hidden) + 2):
            data, rest = divmod(world_size, tensor * pipeline)
            if not rest:
                yield Shape(data, pipeline, tensor)


def table(found: list[LayoutCost], memory_bytes: float | None) -> list[str]:
    """Returns a line for each layout, and one that proposes the fastest that fits."""
    lines = [
        f"{'data':>5} {'pipeline':>8} {'tensor':>6} {'step':>10} {'passes':>10} {'bubble':>10} {'exchange':>10} {'sent':>10} "
        f"{'memory':>10}"
    ]
    fitting = [one for one in found if memory_bytes is None or one.memory_bytes <= memory_bytes]
    for one in found:
        mark = "" if one in fitting else "  does not fit"
        lines.append(
            f"{one.shape.data:5,} {one.shape.pipeline:8} {one.shape.tensor:6} {time_text(one.step_s):>10} "
            f"{time_text(one.passes_s):>10} {time_text(one.bubble_s):>10} {time_text(one.exchange_s):>10} "
            f"{bytes_text(one.sent_bytes):>10} {bytes_text(one.memory_bytes):>10}{mark}"
        )
    if not fitting:
        return [*lines, "", "No layout fits: type more --ranks or more --shards, or a smaller --micro-batch."]
    best = fitting[0].shape
    flags = [f"--{axis} {count}" for axis, count in (("tensor", best.tensor), ("pipeline", best.pipeline)) if count > 1]
    return [*lines, "", f"The fastest that fits: {' '.join(flags) or 'data parallel ranks alone'}."]


def check(config: Config, flags: Mapping[str, Any]) -> None:
    """Raises InputError where --layouts cannot be answered, or --memory is for nothing."""
    if not flags.get("layouts"):
        if "memory" in flags:
            raise InputError("--memory is for --layouts; type that as well, or drop it")
        return
    if "parameters" in flags:
        raise InputError("--layouts: --parameters does not say which layers there are; type --hidden 512,512")
    if config.sync != "every-step" or WIRES[config.wire].kind is Kind.COMPRESSOR:
        raise InputError(
            "--layouts: ranks with parts of the params want --sync every-step, and a wire that sends all of them"
        )


def answer(found: Mapping[int, list[LayoutCost]], flags: Mapping[str, Any]) -> list[str]:
    """Returns tables for numbers of ranks, or JSON."""
    memory_bytes = parse_bytes(flags["memory"], "memory") if "memory" in flags else None
    if flags.get("json"):
        rows = {
            str(world_size): [one._asdict() | {"shape": one.shape._asdict()} for one in own]
            for world_size, own in found.items()
        }
        return [json.dumps({"layouts": rows}, indent=2)]
    tables = ((f"{plural(world_size, 'rank')}:", *table(own, memory_bytes), "") for world_size, own in found.items())
    return [line for lines in tables for line in lines][:-1]


def _cost(
    config: Config,
    image_shape: tuple[int, int],
    costs: Costs,
    cluster: Cluster,
    shape: Shape,
    buckets: Sequence[Layer],
) -> LayoutCost:
    laid_out = replace(config, tensor=shape.tensor, pipeline=shape.pipeline, stages=None)
    ranks = predict(laid_out, image_shape, shape.data * shape.replica, range(shape.replica))
    num_micro_batches = math.ceil(global_batch(config) / config.micro_batch)
    own = math.ceil(num_micro_batches / shape.data)
    turn_s = max(_turn_s(laid_out, image_shape, costs, cluster, shape, rank, own) for rank in ranks)
    passes_s, bubble_s = (own + shape.pipeline - 1) * turn_s, (shape.pipeline - 1) * turn_s
    largest = max(ranks, key=lambda rank: rank.params_bytes)
    whole_bytes = 4 * build_network.layout(config, image_shape).size
    is_sharded = largest.optimizer_bytes < largest.params_bytes
    update_s = costs.update_s * largest.optimizer_bytes / whole_bytes
    load = Load(largest.params_bytes // 4, num_micro_batches, shape.data, reduce=config.reduce, sharded=is_sharded)
    exchange_s = _exchange_s(laid_out, costs, cluster, shape, load, buckets)
    return LayoutCost(
        shape,
        passes_s + exchange_s + update_s,
        passes_s,
        bubble_s,
        exchange_s,
        update_s,
        max(sum(rank.sent) for rank in ranks),
        max(_memory_bytes(laid_out, image_shape, shape, rank, own) for rank in ranks),
    )


def _turn_s(
    config: Config,
    image_shape: tuple[int, int],
    costs: Costs,
    cluster: Cluster,
    shape: Shape,
    rank: RankOf,
    own: int,
) -> float:
    """One micro-batch, forward and backward, by one rank: computing, and messages of layers and of stages."""
    widths = build_network.sizes(config, image_shape)
    stage = build_network.stages(config, widths, shape.pipeline)[rank.place.pipeline]
    layer_costs = build_network.layer_costs(widths)
    shards = build_network.shards_of(config, shape, rank.place)
    share = sum(layer_costs[stage]) / sum(layer_costs) * len(shards.own) / shards.count
    whole_s = costs.micro_batch_s + config.micro_batch * costs.sample_s
    numbers = range(len(widths) - 1)[stage]
    rounds = sum(1 if number == len(widths) - 2 else 2 * (number > 0) for number in numbers) * (shape.tensor > 1)
    edges = (rank.place.pipeline > 0) + (rank.place.pipeline < shape.pipeline - 1)
    between_ranks = _link(cluster, shape.tensor)
    between_stages = _link(cluster, shape.replica)
    starts = 1 + MESSAGE_SHARE * max(0, shape.tensor - 2)
    return (
        share * whole_s
        + rounds * starts * between_ranks.latency_s
        + rank.sent.tensor / own / between_ranks.bytes_per_s
        + edges * between_stages.latency_s
        + rank.sent.pipeline / own / between_stages.bytes_per_s
    )


def _link(cluster: Cluster, span: int) -> Link:
    """The link between ranks of a group that are among so many neighbours."""
    return cluster.inside if span <= cluster.ranks_per_node else cluster.between


def _exchange_s(
    config: Config,
    costs: Costs,
    cluster: Cluster,
    shape: Shape,
    load: Load,
    buckets: Sequence[Layer],
) -> float:
    """The sum of gradients over replicas, and what the ranks of a replica tell each other."""
    told_s = 2 * math.log2(shape.replica) * _link(cluster, shape.replica).latency_s
    if shape.data == 1:
        return told_s
    # All ranks of a replica sum at once, and those of a node share its link.
    sharing = min(shape.replica, cluster.ranks_per_node)
    between = Link(cluster.between.latency_s, cluster.between.bytes_per_s / sharing)
    links = Cluster(max(1, cluster.ranks_per_node // shape.replica), cluster.inside, between)
    added = (shape.data * WIRES[config.wire].num_pieces(load) - 1) / shape.data
    beside = in_buckets(config.wire, load, buckets, config.micro_batch, costs, links)
    sum_s = beside.exposed_s if beside else seconds(WIRES[config.wire].traffic(load), links)
    return told_s + sum_s + load.size * added * costs.add_s


def _memory_bytes(config: Config, image_shape: tuple[int, int], shape: Shape, rank: RankOf, own: int) -> int:
    """Params, rows of gradients, the optimizer's vectors, and activations of the micro-batches that are under way."""
    widths = build_network.sizes(config, image_shape)
    stage = build_network.stages(config, widths, shape.pipeline)[rank.place.pipeline]
    edges = widths[stage.start : stage.stop + 1]
    under_way = own if config.pipeline_schedule == "gpipe" else min(own, shape.pipeline - rank.place.pipeline)
    activations = 4 * config.micro_batch * (under_way * sum(edges) + sum(edges[1:]))
    num_rows = own.bit_length() + 1
    num_vectors = len(RULES[config.optimizer].state)
    return rank.params_bytes * (1 + num_rows) + num_vectors * rank.optimizer_bytes + activations
