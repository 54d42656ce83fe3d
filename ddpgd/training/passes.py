"""Forward and backward passes of a rank's micro-batches, by a rank that has all layers; `pipeline.py` has the other kind."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple, Protocol

from ddpgd.comm import whereabouts
from ddpgd.comm.rows import Group
from ddpgd.comm.whereabouts import COMPUTED, MICRO_BATCH
from ddpgd.data.batches import Samples
from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.model.network import Network


class Feed(NamedTuple):
    """The samples of micro-batches: the first `num_samples` of those that order[cursor[FIRST]] and its successors name.

    `augmentation`: what training does to them; None: nothing.
    """

    samples: Samples
    order: Array
    cursor: Array
    micro_batch: int
    num_samples: int
    augmentation: Augmentation | None = None

    def rows(self, micro_batches: range) -> tuple[int, int]:
        """Returns the offset of the first sample of some micro-batches, and their number."""
        offset = micro_batches.start * self.micro_batch
        return offset, min(micro_batches.stop * self.micro_batch, self.num_samples) - offset

    def load(self, network: Network, micro_batches: range, slot: int = 0) -> int:
        """Gathers the samples of some micro-batches into a slot of the network's buffers; returns their number."""
        here = whereabouts.here()
        here[MICRO_BATCH] = micro_batches.start
        here[COMPUTED] += 1
        offset, num_rows = self.rows(micro_batches)
        images, labels = self.samples.images, self.samples.labels
        network.load(images, labels, self.order, self.cursor, offset, num_rows, slot, self.augmentation)
        return num_rows


class Weights(NamedTuple):
    """Params (n,), what `Ops.round_weights` made of them, and the control words that hold the loss scale."""

    params: Array
    weights: Array
    control: Array


class Passes(Protocol):
    """The passes of a rank.

    Attributes:
        network: Its layers.
        needs_host: True if the host must take part, since ranks exchange values in it.
        wait_s: Seconds that it has waited for other stages so far.
    """

    network: Network
    needs_host: bool
    wait_s: float

    def gradients(
        self, feed: Feed, groups: Sequence[Group], at: Weights, layers: range | None = None
    ) -> Iterator[Group]:
        """Fills the rows of each group with the sums over its micro-batches' samples, and yields it; in order.

        `layers`: of one group the gradients of these alone, the last layers first; for ranks that have all. None: all.
        """

    def losses(self, feed: Feed, groups: Sequence[Group], at: Weights) -> Iterator[Group]:
        """Fills the tails of each group in a forward pass alone, and yields it; in order."""


class WholeNetwork:
    """`Passes` of a rank that has all layers, or its shards of all."""

    wait_s = 0.0

    def __init__(self, ops: Ops, network: Network, needs_host: bool = False) -> None:
        """`needs_host`: as of the transport of ranks that share the layers."""
        self.network = network
        self.needs_host = needs_host
        self._together = ops.fused if all(layer.fusable for layer in network.stage.layers) else nullcontext

    def gradients(
        self, feed: Feed, groups: Sequence[Group], at: Weights, layers: range | None = None
    ) -> Iterator[Group]:
        begins = layers is None or layers.stop == len(self.network.stage.layers)
        for group in groups:
            rows = group.rows
            with self._together():
                _, num_rows = feed.rows(group.micro_batches)
                if begins:
                    feed.load(self.network, group.micro_batches)
                arguments = num_rows, feed.micro_batch, at.control, rows.grads, rows.tails, layers
                self.network.gradient(at.params, at.weights, *arguments)
            yield group

    def losses(self, feed: Feed, groups: Sequence[Group], at: Weights) -> Iterator[Group]:
        network = self.network
        for group in groups:
            num_rows = feed.load(network, group.micro_batches)
            network.forward(at.params, at.weights, num_rows, feed.micro_batch)
            network.loss(num_rows, feed.micro_batch, at.control, group.rows.tails)
            yield group
