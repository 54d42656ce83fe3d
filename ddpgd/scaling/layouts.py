"""Layouts of ranks, predicted: what each rank of a grid sends in a step, and holds, and how long stages idle."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from ddpgd.comm import tree
from ddpgd.comm.grid import Shape
from ddpgd.comm.wires import WIRES, Load
from ddpgd.config.schema import Config, global_batch
from ddpgd.kernels.words import BLOCK, TAIL_WORDS
from ddpgd.model.layers import network_layout
from ddpgd.run import build_exchange, build_network
from ddpgd.training.batch_split import Algebra


class Sent(NamedTuple):
    """Bytes that a rank sends in a full step, by purpose.

    `tensor`: inputs and sums of layers that ranks share. `pipeline`: at the edges of stages. `data`: gradients, and params of
    a sharded optimizer. `replica`: norms and statistics.
    """

    tensor: int
    pipeline: int
    data: int
    replica: int


class RankOf(NamedTuple):
    """Predictions of one rank. `bubble`: share of the passes.

    `optimizer_bytes`: of each of the optimizer's vectors, on the rank with the same params that holds most of them.
    """

    place: Shape
    sent: Sent
    params_bytes: int
    optimizer_bytes: int
    bubble: float


def predict(
    config: Config, image_shape: tuple[int, int], world_size: int, ranks: Sequence[int] | None = None
) -> list[RankOf]:
    """Returns what each rank of a layout sends and holds; float32 on every edge.

    Args:
        config: Resolved; its layout is a grid of `world_size` ranks.
        image_shape: Of the samples.
        world_size: Number of ranks.
        ranks: Those that are asked for; None: all.
    """
    shape = build_network.grid_shape(config, world_size)
    whole = build_network.layout(config, image_shape)
    num_micro_batches = Algebra(global_batch(config), config.micro_batch, shape.data).num_micro_batches
    last = global_batch(config) - (num_micro_batches - 1) * config.micro_batch
    rows = [config.micro_batch] * (num_micro_batches - 1) + [last]
    found = []
    for rank in range(world_size) if ranks is None else ranks:
        place = shape.place(rank)
        part = network_layout(build_network.layers(config, image_shape, shape, place))
        is_sharded = build_exchange.is_sharded(config, part.size, shape.data, on_cpu=True)
        own = tree.ranges(num_micro_batches, shape.data)[place.data]
        own_rows = [rows[number] for number in own]
        owned = tuple(build_network.owned(config, part, shape.data)) if is_sharded else ()
        load = Load(part.size, num_micro_batches, shape.data, reduce=config.reduce, sharded=is_sharded, owned=owned)
        data = sum(one.num_bytes[place.data] for one in WIRES[config.wire].traffic(load)) if shape.data > 1 else 0
        words = 4 * (whole.size // BLOCK + TAIL_WORDS)
        replica = 2 * words * (shape.replica - 1) // shape.replica
        sent = Sent(*_passes(config, image_shape, shape, place, own_rows), data, replica)
        optimizer_bytes = 4 * max((span.stop - span.start for span in owned), default=part.size)
        bubble = (shape.pipeline - 1) / (max(1, len(own)) + shape.pipeline - 1)
        found.append(RankOf(place, sent, 4 * part.size, optimizer_bytes, bubble))
    return found


def _passes(
    config: Config, image_shape: tuple[int, int], shape: Shape, place: Shape, rows: Sequence[int]
) -> tuple[int, int]:
    """The bytes of forward and backward passes of so many `rows` each: between ranks that share layers, and stages."""
    widths = build_network.sizes(config, image_shape)
    shards = build_network.shards_of(config, shape, place)
    stage = build_network.stages(config, widths, shape.pipeline)[place.pipeline]
    num_pieces, others = len(tree.pieces(shards.count, shards.own)), shape.tensor - 1
    tensor = 0
    for number, (inputs, outputs) in list(enumerate(pairwise(widths)))[stage]:
        own = shards.columns_of_ranks(inputs)[shards.rank]
        width = own.stop - own.start
        if number == len(widths) - 2:  # the last layer's logits: all pieces to every other rank
            tensor += num_pieces * others * outputs
        elif number > 0:  # the inputs' own columns to every other rank; of the gradient by them, theirs to each
            tensor += others * width + num_pieces * (inputs - width)
    edges = 0
    for edge, is_crossed in ((stage.start, place.pipeline > 0), (stage.stop, place.pipeline < shape.pipeline - 1)):
        if is_crossed:
            own = shards.columns_of_ranks(widths[edge])[shards.rank]
            edges += own.stop - own.start
    return 4 * sum(rows) * tensor * (shape.tensor > 1), 4 * sum(rows) * edges
