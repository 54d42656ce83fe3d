"""The form of a run's exchange: between all ranks at once, or inside nodes first; asked for, or found faster."""

import math
import time
from functools import partial
from typing import NamedTuple

import numpy as np

from ddpgd.comm.cluster import Cluster, Link, seconds
from ddpgd.comm.levels import Levels, find_nodes, split
from ddpgd.comm.transport import Transport
from ddpgd.comm.wires import WIRES, Kind, Load
from ddpgd.config.exchange import form
from ddpgd.config.schema import Config
from ddpgd.config.units import bytes_text
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.kernels.ops import Ops
from ddpgd.run import build, build_network
from ddpgd.run import overlap as overlaps
from ddpgd.run.device import Machine
from ddpgd.run.overlap import Overlap

PROBE_WORDS = 1 << 16
"""Of the messages that tell a link's rate: 256 KiB a rank."""
REPETITIONS = 5
NO_OVERLAP = Overlap()


class Chosen(NamedTuple):
    """A form. `levels`: the groups of two levels; None: it is flat. `why`: a clause, where there was a choice.

    `overlap`: the buckets of a flat one.
    """

    levels: Levels | None = None
    why: str = ""
    overlap: Overlap = NO_OVERLAP

    @property
    def text(self) -> str:
        """The words on it in the first lines of a run, after the wire."""
        why = f" ({self.why})" if self.why else ""
        form = f", two-level{why}" if self.levels else f", flat{why}" * bool(why)
        return form + self.overlap.text


def choose(config: Config, machine: Machine, ops: Ops, transport: Transport, data: Dataset) -> Chosen:
    """Chooses the form that --exchange and --overlap ask for; every rank calls it, and gets the same; see `of_levels`."""
    chosen = of_levels(config, machine, ops, transport, data)
    link = partial(_link, ops, transport, transport, PROBE_WORDS)
    nodes = chosen.levels.nodes if chosen.levels else ()
    overlap = overlaps.plan(config, ops, transport, data, nodes, link)
    return chosen._replace(overlap=overlap)


def of_levels(config: Config, machine: Machine, ops: Ops, transport: Transport, data: Dataset) -> Chosen:
    """Chooses the form that --exchange asks for; every rank calls it, and gets the same.

    `auto` measures the links inside nodes and between them, and takes what the cost model says is faster.

    Raises:
        InputError: On all ranks: two levels are asked for by a wire that would round other values in one, and the ranks of
            a node do not follow each other.
    """
    asked = form(config)
    if asked == "flat":
        return Chosen()
    nodes, why = find_nodes(transport)
    if not nodes:
        if WIRES[config.wire].kind is not Kind.EXACT:
            raise InputError(
                f"--exchange two-level: {why}; start ranks node by node (mpirun --map-by slot), or a new run with "
                "--exchange flat"
            )
        return Chosen(None, why)
    if asked == "auto" and (len(nodes) == 1 or max(nodes) == 1):
        return Chosen()
    levels = split(transport, nodes, lambda group: machine.inside(config, ops, transport, group))
    if asked == "two-level":
        return Chosen(levels)
    cluster = measure(ops, levels, transport)
    cut, size = build.batches(config, data), build_network.layout(config, data.image_shape).size
    faster = two_levels_are_faster(config.wire, Load(size, cut.num_micro_batches(0), sum(nodes)), nodes, cluster)
    rates = (
        f"{bytes_text(cluster.inside.bytes_per_s)}/s inside nodes, {bytes_text(cluster.between.bytes_per_s)}/s between"
    )
    return Chosen(levels if faster else None, f"auto: {rates}")


def two_levels_are_faster(wire: str, flat: Load, nodes: tuple[int, ...], cluster: Cluster) -> bool:
    """True if the cost model says that a sum takes less time inside nodes and then between them."""
    forms = flat._replace(nodes=nodes), flat
    in_levels_s, flat_s = (seconds(WIRES[wire].traffic(load), cluster) for load in forms)
    return in_levels_s < flat_s


def measure(ops: Ops, levels: Levels, world: Transport) -> Cluster:
    """Measures the links inside nodes, and between them while all their ranks send; every rank calls it, and gets the same."""
    inside = _link(ops, levels.inside, world, PROBE_WORDS)
    between = _link(ops, levels.between, world, PROBE_WORDS if levels.carries else 1)
    shared = Link(between.latency_s, levels.num_channels * between.bytes_per_s)
    return Cluster(max(levels.nodes), inside, shared)


def _link(ops: Ops, group: Transport, world: Transport, num_words: int) -> Link:
    """Measures the latency, and the rate at which a rank sends `num_words`; fewer of them on ranks that send nothing."""
    latency_s = _exchange_s(ops, group, world, 1)
    transfer_s = _exchange_s(ops, group, world, num_words) - latency_s
    return Link(latency_s, 4 * PROBE_WORDS / max(transfer_s, 0.05 * latency_s, 1e-9))


def _exchange_s(ops: Ops, group: Transport, world: Transport, num_words: int) -> float:
    """Measures the seconds in which each rank sends so many words, to all others of its group together."""
    length = max(1, num_words // max(1, group.world_size - 1))
    sends, receives = (
        [[] if peer == group.rank else [ops.zeros((length,), np.float32)] for peer in range(group.world_size)]
        for _ in ("sends", "receives")
    )
    run = group.all_to_all_init(sends, receives)
    best_s = math.inf
    for _ in range(REPETITIONS):
        world.barrier()
        started = time.perf_counter()
        run()
        ops.synchronize()
        best_s = min(best_s, time.perf_counter() - started)
    return max(world.all_gather_objects(best_s))
