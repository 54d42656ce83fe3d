"""Cost model: the time of a step on any number of ranks, from a few constants that are measured (`fit.py`) or stated.

Hockney, "The communication challenge for MPP", 1994: a message takes a latency and its bytes over a rate; collectives after
Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in MPICH", 2005. Seconds throughout.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from ddpgd.comm.traffic import Traffic
from ddpgd.comm.wires import WIRES, Kind, Load

MESSAGE_SHARE = 0.1
"""What a rank's second and further messages of a round take, over the latency of the first: their start-up overlaps."""


@dataclass(frozen=True)
class Link:
    """`latency_s`: what a message of no bytes takes; `bytes_per_s`: each way at once."""

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Cluster:
    """`inside`: from each rank to others of its node. `between`: from each node to all others, shared by its ranks."""

    ranks_per_node: int
    inside: Link
    between: Link


class Coding(NamedTuple):
    """Seconds of a lossy wire per element of the gradient: for topk, of the selection; for powersgd, of all of it."""

    encode_s: float = 0.0
    decode_s: float = 0.0


NO_CODING = Coding()


@dataclass(frozen=True)
class Costs:
    """Seconds of one rank's work: a micro-batch, each of its samples, an update, adding an element, coding one.

    `jitter`: the standard deviation of a step's computing, over its mean; a synchronized step waits for the slowest rank.
    """

    micro_batch_s: float
    sample_s: float
    update_s: float = 0.0
    add_s: float = 0.0
    coding: Coding = NO_CODING
    jitter: float = 0.0


@dataclass(frozen=True)
class Work:
    """The work of all ranks in a step. `local_steps`: steps between two exchanges.

    `density`: of topk, what a rank sends. `narrow`: of powersgd, the elements of its two sums, instead of num_params.
    `overlap`: the share of computing during which bytes may travel: 0 for ddpgd, whose exchange begins when all gradients
    are there; the backward pass, 2/3, for those that send the last layers' first.
    """

    num_params: int
    global_batch: int
    micro_batch: int
    wire: str = "float32"
    reduce: str = "ordered"
    local_steps: int = 1
    density: float = 1.0
    narrow: tuple[int, int] = (0, 0)
    overlap: float = 0.0


class Prediction(NamedTuple):
    """A step's parts, means over steps; `wire_bytes` are those of the rank that sends most, `efficiency` 1 is perfect.

    `compute_s` includes `update_s`, which every rank makes as a whole.
    """

    world_size: int
    global_batch: int
    num_pieces: int
    wire_bytes: float
    compute_s: float
    update_s: float
    wait_s: float
    latency_s: float
    transfer_s: float
    coding_s: float
    hidden_s: float
    step_s: float
    one_rank_s: float
    samples_per_s: float
    efficiency: float

    @property
    def exchange_s(self) -> float:
        """Seconds that the exchange adds to a step."""
        return self.latency_s + self.transfer_s + self.coding_s - self.hidden_s


def predict(work: Work, costs: Costs, cluster: Cluster, world_size: int) -> Prediction:
    """A step of `work` by `world_size` ranks, filled node by node."""
    num_micro_batches = math.ceil(work.global_batch / work.micro_batch)
    compute_s = _compute_s(work, costs, num_micro_batches, world_size)
    one_rank_s = _compute_s(work, costs, num_micro_batches, 1)
    load = _load(work, num_micro_batches, world_size)
    num_pieces = WIRES[work.wire].num_pieces(load)
    sums = _sums(work, load)
    wait_s = costs.jitter * compute_s * waits(world_size) / math.sqrt(work.local_steps)
    latency_s = sum(one.latency_s(cluster) for one in sums)
    transfer_s = sum(one.transfer_s(cluster) for one in sums)
    coding_s = _coding_s(work, costs, load, num_pieces) if sums else 0.0
    parts = [part / work.local_steps for part in (latency_s, transfer_s, coding_s)]
    hidden_s = min(sum(parts), work.overlap * compute_s)
    step_s = compute_s + wait_s + sum(parts) - hidden_s
    return Prediction(
        world_size=world_size,
        global_batch=work.global_batch,
        num_pieces=num_pieces,
        wire_bytes=sum(one.wire_bytes for one in sums) / work.local_steps,
        compute_s=compute_s,
        update_s=costs.update_s,
        wait_s=wait_s,
        latency_s=parts[0],
        transfer_s=parts[1],
        coding_s=parts[2],
        hidden_s=hidden_s,
        step_s=step_s,
        one_rank_s=one_rank_s,
        samples_per_s=work.global_batch / step_s,
        efficiency=one_rank_s / (world_size * step_s),
    )


def weak(work: Work, rows_per_rank: int, world_size: int) -> Work:
    """The same work with so many samples a rank."""
    return replace(work, global_batch=rows_per_rank * world_size)


def waits(world_size: int) -> float:
    """Returns the expected maximum of so many standard normal values: the slowest rank's excess in standard deviations."""
    return math.sqrt(2 * math.log(world_size))


def _compute_s(work: Work, costs: Costs, num_micro_batches: int, world_size: int) -> float:
    """Returns the number of the rank that has most."""
    own = math.ceil(num_micro_batches / world_size)
    rows = min(own * work.micro_batch, work.global_batch)
    return own * costs.micro_batch_s + rows * costs.sample_s + costs.update_s


def _load(work: Work, num_micro_batches: int, world_size: int) -> Load:
    """Returns the sum: of a step's micro-batches, or of one change of params a rank."""
    count = world_size if work.local_steps > 1 else num_micro_batches
    return Load(work.num_params, count, world_size, work.density, work.narrow, work.reduce)


@dataclass(frozen=True)
class _Sum:
    """One sum over ranks: rounds one after the other, in each of which a rank sends `num_messages`, and bytes in all.

    `is_ring`: only neighbours talk, so what a node sends is what one of its ranks does.
    """

    world_size: int
    rounds: float
    num_messages: int
    wire_bytes: float
    is_ring: bool = False

    def latency_s(self, cluster: Cluster) -> float:
        is_spread = self.world_size > cluster.ranks_per_node
        slowest = cluster.between if is_spread else cluster.inside
        return self.rounds * slowest.latency_s * (1 + MESSAGE_SHARE * (self.num_messages - 1))

    def transfer_s(self, cluster: Cluster) -> float:
        """Through nodes and between them at the same time."""
        local = min(self.world_size, cluster.ranks_per_node)
        if local == self.world_size:
            return self.wire_bytes / cluster.inside.bytes_per_s
        if self.is_ring:
            inside_bytes, between_bytes = (self.wire_bytes if local > 1 else 0.0), self.wire_bytes
        else:
            share = (self.world_size - local) / (self.world_size - 1)
            inside_bytes, between_bytes = self.wire_bytes * (1 - share), local * self.wire_bytes * share
        return max(inside_bytes / cluster.inside.bytes_per_s, between_bytes / cluster.between.bytes_per_s)


def _sums(work: Work, load: Load) -> list[_Sum]:
    """Returns what ranks do together in an exchange, as the rank that sends most does it."""
    if load.world_size == 1:
        return []
    sums = WIRES[work.wire].traffic(load)
    return [_Sum(load.world_size, one.rounds, _messages(one), max(one.num_bytes), one.is_ring) for one in sums]


def _messages(one: Traffic) -> int:
    """Returns the messages of a round: a sum's neighbour, or all other ranks."""
    return 1 if one.is_ring else len(one.num_bytes) - 1


def _coding_s(work: Work, costs: Costs, load: Load, num_pieces: int) -> float:
    """Additions of all pieces of a segment by its owner; encodings and decodings of what travels."""
    world_size = load.world_size
    size, kind = work.num_params, WIRES[work.wire].kind
    if kind is Kind.COMPRESSOR:
        return size * costs.coding.encode_s + WIRES[work.wire].num_decoded(load) * costs.coding.decode_s
    added_s = size / world_size * (world_size * num_pieces - 1) * costs.add_s
    if kind is Kind.EXACT:
        return added_s
    return added_s + size * ((1 + 1 / world_size) * costs.coding.encode_s + 2 * costs.coding.decode_s)
