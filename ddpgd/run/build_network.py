"""Making of the network: its layers and their layout from a configuration, whole, or what one rank of a grid has of it."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from ddpgd.comm.bulk import Places, placed
from ddpgd.comm.grid import Shape
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.windows import segments
from ddpgd.config.schema import Config
from ddpgd.config.units import plural
from ddpgd.data.idx import NUM_CLASSES
from ddpgd.data.pooling import pooled_shape
from ddpgd.errors import InputError
from ddpgd.kernels.dropout import Dropout
from ddpgd.kernels.newton_schulz import multiplications
from ddpgd.kernels.ops import Ops
from ddpgd.model.layers import Layer, dense_layers, network_layout
from ddpgd.model.network import Network
from ddpgd.model.shards import Shards
from ddpgd.model.tensor_parallel import sharded_layers
from ddpgd.optim.rules import RULES
from ddpgd.params import Layout
from ddpgd.training.state import Held

ONE, FIRST = Shape(1, 1, 1), Shape(0, 0, 0)
"""The grid of one rank, and its place."""


def input_shape(config: Config, image_shape: tuple[int, int]) -> tuple[int, int]:
    """The rows and columns of pixels that the network sees of an image. InputError: it cannot be pooled so."""
    return pooled_shape(image_shape, config.input_pool)


def sizes(config: Config, image_shape: tuple[int, int]) -> tuple[int, ...]:
    """The widths of all layers, inputs and classes included."""
    rows, cols = input_shape(config, image_shape)
    return (rows * cols, *config.hidden, NUM_CLASSES)


def layers(
    config: Config,
    image_shape: tuple[int, int],
    shape: Shape = ONE,
    place: Shape = FIRST,
    tensor: Transport | None = None,
) -> tuple[Layer, ...]:
    """The network's layers; or, at a place of a grid of `shape`, what a rank has of them, whose `tensor` group shares them."""
    widths = sizes(config, image_shape)
    dropouts = _dropouts(config, len(widths) - 1)
    if config.shards == 1:
        whole: tuple[Layer, ...] = dense_layers(widths, config.activation, dropouts)
    else:
        shards = shards_of(config, shape, place)
        whole = sharded_layers(widths, config.activation, shards, tensor or Alone(), dropouts)
    return whole[stages(config, widths, shape.pipeline)[place.pipeline]]


def _dropouts(config: Config, num_layers: int) -> list[Dropout | None]:
    """The dropout of each layer's inputs: pixels first, then hidden units."""
    probabilities = config.input_dropout, *[config.dropout] * (num_layers - 1)
    return [Dropout(config.seed, layer, value) if value else None for layer, value in enumerate(probabilities, start=1)]


def shards_of(config: Config, shape: Shape, place: Shape) -> Shards:
    """The shards of layers that the rank at a place of a grid has."""
    return Shards(config.shards, shape.tensor, place.tensor)


def stages(config: Config, widths: Sequence[int], num_stages: int) -> list[slice]:
    """Returns the layers of each stage: those of --stages, or so that the dearest stage costs least.

    A layer costs two products, of forward pass and weights, and one more where there is a gradient by its inputs.
    """
    if config.stages and num_stages > 1:
        bounds = [0, *accumulate(config.stages)]
        return [slice(first, end) for first, end in pairwise(bounds)]
    return balanced(layer_costs(widths), num_stages)


def layer_costs(widths: Sequence[int]) -> list[int]:
    """Returns the multiplications of each layer, of one sample: forward pass, weights, and inputs but for the first."""
    return [(2 if number == 0 else 3) * inputs * outputs for number, (inputs, outputs) in enumerate(pairwise(widths))]


def balanced(costs: Sequence[int], num_parts: int) -> list[slice]:
    """Returns consecutive parts, none empty, of which the dearest is as cheap as can be."""
    low, high = max(costs), sum(costs)
    while low < high:
        limit = (low + high) // 2
        low, high = (low, limit) if len(_filled(costs, limit, 1)) <= num_parts else (limit + 1, high)
    return _filled(costs, low, num_parts)


def _filled(costs: Sequence[int], limit: int, least: int) -> list[slice]:
    """Returns parts that cost `limit` at most, each as large as can be, and `least` of them at least."""
    bounds, part = [0], 0
    for number, cost in enumerate(costs):
        must_end = len(costs) - number < least - len(bounds) + 1
        if number and (part + cost > limit or must_end):
            bounds.append(number)
            part = 0
        part += cost
    return [slice(first, end) for first, end in pairwise((*bounds, len(costs)))]


def layout(config: Config, image_shape: tuple[int, int]) -> Layout:
    """The layout of the whole network's tensors in a vector."""
    return network_layout(layers(config, image_shape))


def model(backend: Ops, config: Config, image_shape: tuple[int, int], max_rows: int) -> Network:
    """The whole network, with room for `max_rows` samples."""
    return Network(backend, layers(config, image_shape), config.loss, max_rows)


def grid_shape(config: Config, world_size: int) -> Shape:
    """Returns how so many ranks form a grid. InputError: they do not."""
    size = config.tensor * config.pipeline
    data, rest = divmod(world_size, size)
    if rest or not data:
        axes = ("tensor", config.tensor), ("pipeline", config.pipeline)
        flags = " ".join(f"--{axis} {count}" for axis, count in axes if count > 1)
        wanted = " or ".join(str(size * count) for count in (max(1, data), max(1, data) + 1))
        raise InputError(f"{flags}: {plural(world_size, 'rank')} cannot form groups of {size}; start {wanted} ranks")
    return Shape(data, config.pipeline, config.tensor)


def owned(config: Config, part: Layout, world_size: int) -> list[slice]:
    """Returns the segment of vectors that each rank updates where the optimizer is sharded over so many: whole blocks.

    They are as even as possible; where the rule works on matrices, each is of whole units, so that the dearest costs least.
    """
    if not RULES[config.optimizer].companion:
        return segments(part.size, world_size)
    costs = [
        sum(
            multiplications(tensor.shape) if tensor.is_hidden else tensor.size
            for tensor in part.tensors
            if unit.start <= tensor.start < unit.stop
        )
        for unit in part.units
    ]
    groups = balanced(costs, min(world_size, len(costs)))
    spans = [slice(part.units[group.start].start, part.units[group.stop - 1].stop) for group in groups]
    return spans + [slice(part.size, part.size)] * (world_size - len(spans))


def held(config: Config, image_shape: tuple[int, int], shape: Shape, is_sharded: Callable[[int], bool]) -> Held:
    """Returns what each rank of a grid holds of the params and of the optimizer's vectors.

    `is_sharded`: size of a rank's part of the params -> whether its replicas divide the vectors; parts differ in size.
    """
    whole = layout(config, image_shape)
    params: list[Places] = []
    optimizer: list[Places] = []
    for rank in range(shape.data * shape.replica):
        place = shape.place(rank)
        part = network_layout(layers(config, image_shape, shape, place))
        params.append(tuple(part.spans_in(whole)))
        own = owned(config, part, shape.data)[place.data] if is_sharded(part.size) else slice(0, part.size)
        optimizer.append(placed(own, params[-1]))
    return Held(params, optimizer, whole.size, shape)
