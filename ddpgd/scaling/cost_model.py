"""Cost model: the time of a step on any number of ranks, from a few constants that are measured (`fit.py`) or stated.

Links as in `comm/cluster.py`; collectives after Thakur, Rabenseifner, Gropp, "Optimization of collective communication
operations in MPICH", 2005. Seconds throughout.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ddpgd.comm.buckets import Layer, Schedule, fastest, why_whole
from ddpgd.comm.cluster import Cluster, latency_s, seconds, transfer_s
from ddpgd.comm.traffic import Level, Traffic
from ddpgd.comm.wires import WIRES, Kind, Load
from ddpgd.kernels.cuda.joined import batched_micro_batches


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
    `overlap`: the share of computing during which bytes may travel: 0 where the exchange begins when all gradients are
    there; the backward pass, 2/3, for those that send the last layers' first. `layers`: where ranks send gradients in
    buckets of layers, the backward passes in a pass of a second; empty: they do not. `exchange`: "flat", "two-level", or
    "auto", the faster of them. `sharded`: each rank updates its part.
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
    layers: tuple[Layer, ...] = ()
    exchange: str = "flat"
    sharded: bool = False


class Prediction(NamedTuple):
    """A step's parts, means over steps; `wire_bytes` are those of the rank that sends most, `efficiency` 1 is perfect.

    `between_bytes`: of a sum of two levels, what the rank that sends most sends to other nodes; 0 for others.
    `num_buckets`: parts in which the gradient travels. `hidden_s`: the exchange's seconds during which ranks compute.

    `compute_s` includes `update_s`, of which `repeated_s` is what other ranks compute as well.
    """

    world_size: int
    global_batch: int
    num_pieces: int
    exchange: str
    num_buckets: int
    wire_bytes: float
    between_bytes: float
    compute_s: float
    update_s: float
    repeated_s: float
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
    update_s = _update_s(work, costs, world_size)
    compute_s = _compute_s(work, costs, num_micro_batches, world_size)
    one_rank_s = _compute_s(work, costs, num_micro_batches, 1)
    load = _load(work, num_micro_batches, cluster, world_size)
    beside = _beside(work, costs, load, cluster)
    load = load._replace(cuts=beside.cuts if beside else ())
    num_pieces = WIRES[work.wire].num_pieces(load)
    sums = _sums(work, load)
    wait_s = costs.jitter * compute_s * waits(world_size) / math.sqrt(work.local_steps)
    coding_s = _coding_s(work, costs, load, num_pieces) if sums else 0.0
    links_s = [sum(part_s(one, cluster) for one in sums) for part_s in (latency_s, transfer_s)]
    parts = [part / work.local_steps for part in (*links_s, coding_s)]
    hidden_s = sum(links_s) - beside.exposed_s if beside else min(sum(parts), work.overlap * compute_s)
    step_s = compute_s + wait_s + sum(parts) - hidden_s
    return Prediction(
        world_size=world_size,
        global_batch=work.global_batch,
        num_pieces=num_pieces,
        exchange="two-level" if load.nodes else "flat",
        num_buckets=len(load.cuts) + 1,
        wire_bytes=_busiest(sums) / work.local_steps,
        between_bytes=_busiest([one for one in sums if one.level is Level.BETWEEN]) / work.local_steps,
        compute_s=compute_s,
        update_s=update_s,
        repeated_s=update_s - costs.update_s / world_size,
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


def in_buckets(
    wire: str, load: Load, layers: Sequence[Layer], micro_batch: int, costs: Costs, cluster: Cluster
) -> Schedule | None:
    """Returns the buckets of a sum that travels beside the last backward pass of a step; None: it travels whole.

    Args:
        wire: The form of gradients.
        load: The sum.
        layers: As of `Work`.
        micro_batch: Samples.
        costs: Of a rank.
        cluster: The links.
    """
    if load.world_size == 1 or why_whole(wire, load, layers):
        return None
    own = math.ceil(load.num_micro_batches / load.world_size)
    joined = min(own, batched_micro_batches(micro_batch, load.size))
    pass_s = joined * (costs.micro_batch_s + micro_batch * costs.sample_s)
    return fastest(wire, load, [Layer(one.start, one.backward_s * pass_s) for one in layers], cluster)


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
    return own * costs.micro_batch_s + rows * costs.sample_s + _update_s(work, costs, world_size)


def _update_s(work: Work, costs: Costs, world_size: int) -> float:
    return costs.update_s / world_size if work.sharded else costs.update_s


def _load(work: Work, num_micro_batches: int, cluster: Cluster, world_size: int) -> Load:
    """Returns the sum: of a step's micro-batches, or of one change of params a rank; in the form that is asked for."""
    count = world_size if work.local_steps > 1 else num_micro_batches
    flat = Load(work.num_params, count, world_size, work.density, work.narrow, work.reduce, sharded=work.sharded)
    levels = flat._replace(nodes=cluster.nodes(world_size))
    either = [flat, levels] if cluster.ranks_per_node > 1 else [flat]
    forms = {"flat": [flat], "two-level": [levels], "auto": either}[work.exchange]
    return min(forms, key=lambda load: seconds(WIRES[work.wire].traffic(load), cluster))


def _beside(work: Work, costs: Costs, load: Load, cluster: Cluster) -> Schedule | None:
    """Returns the buckets of gradients; None: they travel whole, or changes of params do."""
    layers = work.layers if work.local_steps == 1 else ()
    return in_buckets(work.wire, load, layers, work.micro_batch, costs, cluster)


def _busiest(sums: list[Traffic]) -> int:
    """Returns the bytes of the rank that sends most."""
    return max((sum(own) for own in zip(*(one.num_bytes for one in sums), strict=True)), default=0)


def _sums(work: Work, load: Load) -> list[Traffic]:
    """Returns what ranks do together in an exchange."""
    return [] if load.world_size == 1 else WIRES[work.wire].traffic(load)


def _coding_s(work: Work, costs: Costs, load: Load, num_pieces: int) -> float:
    """Additions of all pieces of a segment by its owner; encodings and decodings of what travels."""
    size, kind = work.num_params, WIRES[work.wire].kind
    if kind is Kind.COMPRESSOR:
        return size * costs.coding.encode_s + WIRES[work.wire].num_decoded(load) * costs.coding.decode_s
    # A sum of two levels adds inside nodes, and codes and adds what is left of each node.
    num_owners = min(load.nodes) if load.nodes else load.world_size
    num_peers = max(load.nodes) if load.nodes else load.world_size
    added = (num_peers * num_pieces - 1) / num_owners
    coded_share = 1 / num_owners if load.nodes else 1.0
    num_nodes = len(load.nodes) or load.world_size
    if load.nodes:
        added += coded_share * (num_nodes - 1) / num_nodes
    added_s = size * added * costs.add_s
    if kind is Kind.EXACT:
        return added_s
    coding = costs.coding
    return added_s + size * coded_share * ((1 + 1 / num_nodes) * coding.encode_s + 2 * coding.decode_s)
