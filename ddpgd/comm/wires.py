"""Wires: the forms of gradients between ranks, in one table that flags, validation, cost model and tests read."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from ddpgd.comm import traffic
from ddpgd.comm.codec import BlockScaled, Codec, Float32, Format
from ddpgd.comm.compressor import Compressor, Setup
from ddpgd.comm.compressors import power_sgd, top_k
from ddpgd.comm.traffic import Traffic
from ddpgd.comm.windows import buckets
from ddpgd.kernels.ops import Ops


class Kind(Enum):
    """Kinds of wires: the values themselves, values scaled by blocks, and sums of few values that stand for all."""

    EXACT = auto()
    BLOCK_SCALED = auto()
    COMPRESSOR = auto()


class Load(NamedTuple):
    """The properties of a sum over ranks that determine its traffic.

    Attributes:
        size: Elements of the gradient.
        num_micro_batches: Micro-batches, over all ranks.
        world_size: Ranks.
        density: Share of the elements that `--wire topk` sends.
        narrow: Elements of the two sums of `--wire powersgd`.
        reduce: "ordered" or "fast".
        nodes: The number of ranks of each node, where the sum has two levels; empty: it is flat.
        sharded: True if each rank updates its segment of the params and hands it to the others.
        cuts: The starts of buckets that travel after each other; see `windows.buckets`.
        owned: With `sharded`: the segments; empty: as even as possible.
    """

    size: int
    num_micro_batches: int
    world_size: int
    density: float = 1.0
    narrow: tuple[int, int] = (0, 0)
    reduce: str = "ordered"
    nodes: tuple[int, ...] = ()
    sharded: bool = False
    cuts: tuple[int, ...] = ()
    owned: tuple[slice, ...] = ()

    @property
    def pieces(self) -> tuple[int, ...]:
        """Rows that each rank sends if none are added across subtrees."""
        return traffic.num_pieces(self.num_micro_batches, self.world_size, self.reduce == "fast")


@dataclass(frozen=True)
class Wire:
    """A form of gradients between ranks.

    Attributes:
        name: The value of `--wire`, and the name of a format's formula in `kernels/reference/codecs.py` and
            `kernels/cuda/codec.cu`.
        source: The publication.
        format: The format of a wire that is scaled by blocks.
        make: Makes the compressor of a wire that compresses.
        sums: Returns the traffic of a compressor: one sum or more, after each other.
        num_decoded: Returns the number of values that a rank of a compressor decodes apart from its other work.
        options: The options that have no meaning without this wire.
        takes_momentum: True if the wire has the momentum of `--optimizer momentum`, and clips what each rank adds.
        keeps_residuals: True if what is not sent is always added to what is sent later.
        needs_shapes: True if the traffic depends on the shapes of tensors.
    """

    name: str
    source: str
    format: Format | None = None
    make: Callable[[Setup], Compressor] | None = None
    sums: Callable[[Load], list[Traffic]] | None = None
    num_decoded: Callable[[Load], float] = lambda _: 0.0
    options: tuple[str, ...] = ()
    takes_momentum: bool = False
    keeps_residuals: bool = False
    needs_shapes: bool = False

    @property
    def kind(self) -> Kind:
        if self.make is not None:
            return Kind.COMPRESSOR
        return Kind.EXACT if self.format is None else Kind.BLOCK_SCALED

    def codec(self, ops: Ops) -> Codec:
        """Returns the codec; of a compressor, that of the rows which it is given."""
        return Float32() if self.format is None else BlockScaled(ops, self.name, self.format)

    def traffic(self, load: Load) -> list[Traffic]:
        """Returns what ranks send in a step, as one or more sums after each other."""
        params = [traffic.shared_params(load.size, load.world_size, load.owned)] if load.sharded else []
        return [*self._traffic_of_gradients(load), *params]

    def _traffic_of_gradients(self, load: Load) -> list[Traffic]:
        if self.sums is not None:
            return self.sums(load)
        if load.reduce == "fast":
            return [traffic.reduced(load.size, load.world_size)]
        exact, coded_bytes = self.format is None, (self.format or Float32()).num_bytes
        if load.nodes:
            return traffic.two_level(load.size, load.num_micro_batches, load.nodes, coded_bytes, exact)
        cuts = () if traffic.is_one_shot(load.size, self.num_pieces(load), exact) else load.cuts
        return [self.of_bucket(load, bucket) for bucket in buckets(load.size, cuts)]

    def of_bucket(self, load: Load, bucket: slice) -> Traffic:
        """Returns the traffic of a part of the gradient in one level, ordered; of a wire that is no compressor."""
        exact, coded_bytes = self.format is None, (self.format or Float32()).num_bytes
        pieces = traffic.num_pieces(load.num_micro_batches, load.world_size, folds_whole=not exact)
        return traffic.ordered(load.size, pieces, coded_bytes, exact, load.sharded and exact, bucket, load.owned)

    def num_pieces(self, load: Load) -> int:
        """Returns the largest number of pieces that any rank sends."""
        return max(load.pieces) if self.kind is Kind.EXACT else 1


_ROWS = (
    Wire("float32", "the values themselves"),
    Wire(
        "float16",
        'Micikevicius et al., "Mixed precision training", 2018',
        # Half a unit in the last place of a value in [2^14, 2^15), over 2^14.
        format=Format(np.uint16, bound=2.0**-11),
    ),
    Wire(
        "bfloat16",
        'Kalamkar et al., "A study of bfloat16 for deep learning training", 2019',
        # As float16, with 8 significant bits.
        format=Format(np.uint16, bound=2.0**-8),
    ),
    Wire(
        "int8",
        'Alistarh et al., "QSGD: communication-efficient SGD via gradient quantization and encoding", 2017; Seide et al., '
        '"1-bit stochastic gradient descent", 2014, for the residual',
        # One step, over at least 63.5.
        format=Format(np.int8, bound=1 / 63.5, random=True),
    ),
    Wire(
        "topk",
        'Lin, Han, Mao, Wang, Dally, "Deep gradient compression", 2018',
        make=top_k.make,
        sums=lambda load: [traffic.gathered(top_k.num_bytes(load.size, load.density), load.world_size)],
        num_decoded=lambda load: load.world_size * load.density * load.size,
        options=("topk_density", "topk_warmup", "topk_masking"),
        takes_momentum=True,
        keeps_residuals=True,
    ),
    Wire(
        "powersgd",
        'Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization", 2019',
        make=power_sgd.make,
        sums=lambda load: power_sgd.sums(load.narrow, load.world_size),
        options=("powersgd_rank",),
        keeps_residuals=True,
        needs_shapes=True,
    ),
)

WIRES = {wire.name: wire for wire in _ROWS}
"""The wires, by name."""

FORMATS = {wire.name: wire.format for wire in _ROWS if wire.format is not None}
"""The formats of wires that are scaled by blocks, by name."""
