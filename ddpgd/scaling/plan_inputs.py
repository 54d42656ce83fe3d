"""Inputs of `ddpgd plan`: flags, and costs of computing and links, stated or measured."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ddpgd.comm.cluster import Cluster, Link
from ddpgd.comm.transport import Transport
from ddpgd.config.schema import Config, resolve
from ddpgd.config.units import parse_count, parse_duration, parse_rate, positive
from ddpgd.errors import InputError
from ddpgd.run.device import Machine
from ddpgd.scaling.cost_model import Coding, Costs
from ddpgd.scaling.fit import Fit, fit

ACHIEVED = 0.8
"""Of a link's nominal rate, what large messages of several processes get."""

STATED = Costs(0.0, 0.0, add_s=2e-11, coding=Coding(2e-11, 2e-11), jitter=0.02)
"""What is not stated of a machine: elements of 12 bytes at 600 GB/s, and steps that differ by 2 %."""

_MOST_RANKS = 2**20

INSIDE = Link(5e-6, 100e9)
"""Between the GPUs of a node, where nothing is said."""

FLAGS: dict[str, tuple[str, str]] = {
    "ranks": ("8,64,512", "numbers of ranks"),
    "ranks_per_node": ("8", "ranks that share a node, and its link"),
    "link": ("100Gbit", "nominal rate between nodes; measured with --measure on several ranks"),
    "latency": ("5us", "latency between nodes; measured with --measure on several ranks"),
    "inside": ("100GB", "rate between the ranks of a node"),
    "inside_latency": ("5us", "latency between the ranks of a node"),
    "parameters": ("NUMBER", "number of parameters of a network of your own, as in 25.6M"),
    "compute_time": ("TIME", "time of one micro-batch, forward and backward, on one rank, as in 120ms"),
    "overlap": (
        "auto|SHARE",
        "auto: the buckets that ddpgd train would take over --transport nccl; else a fraction of computing (PyTorch DDP: 0.66)",
    ),
    "samples": ("NUMBER", "samples in an epoch (default: 60000, as in MNIST)"),
    "seconds": ("SECONDS", "time that --measure may take (default: 4)"),
    "memory": ("80GB", "with --layouts: the memory of a rank, which rules out what does not fit"),
    "plot": ("FILE", "draw efficiency against ranks, as PNG or SVG"),
    "deadline": ("60s", "with --sync federated: the time that a server waits for the clients of a round"),
    "device_link": ("10Mbit", "with --sync federated: rate to and from a client's device"),
    "device_slower": ("10", "with --sync federated: times of computing on a client's device over those of a rank"),
    "device_spread": ("0.5", "with --sync federated: how unequal devices are, sigma of a log-normal distribution"),
}
"""The flags of `ddpgd plan` that `ddpgd train` does not have: a value that is typed for example, and help."""

DEVICE_FLAGS = ("deadline", "device_link", "device_slower", "device_spread")
"""Those on the devices of clients; the values that FLAGS shows for the last three are their defaults."""


def text(flags: Mapping[str, Any], name: str) -> str:
    """Returns the value of a flag, as typed or by default."""
    return str(flags.get(name, FLAGS[name][0]))


def ranks(flags: Mapping[str, Any]) -> list[int]:
    """Returns the numbers of ranks that are asked for, ascending."""
    found = sorted({parse_count(part, "ranks") for part in text(flags, "ranks").split(",")})
    if found[-1] > _MOST_RANKS:
        raise InputError(f"--ranks {found[-1]}: must be at most {_MOST_RANKS:,}")
    return found


def costs(flags: Mapping[str, Any], fitted: Fit | None, config: Config) -> Costs:
    """Returns the costs of a rank, as stated or measured."""
    if "compute_time" in flags:
        return replace(STATED, sample_s=parse_duration(flags["compute_time"], "compute-time") / config.micro_batch)
    if fitted is None:
        raise InputError(
            "plan: the time of computing is missing; type --measure, or --parameters 25.6M --compute-time 120ms"
        )
    return replace(fitted.costs, coding=fitted.codings.get(config.wire, Coding()))


def cluster(flags: Mapping[str, Any], fitted: Fit | None) -> Cluster:
    """Links as stated; what is not stated, as measured: inside a machine, or between those that have ranks.

    Measured inside one, and nothing said of others: all ranks are taken to be in it.
    """
    measured = fitted.link if fitted else None
    is_inside = fitted is not None and fitted.num_nodes == 1
    if "link" in flags:
        latency_s = parse_duration(text(flags, "latency"), "latency")
        between = Link(latency_s, ACHIEVED * parse_rate(flags["link"], "link"))
    elif measured and not (is_inside and "ranks_per_node" in flags):
        between = measured
    elif measured:
        raise InputError(
            "plan: the rate between machines is missing; type --link 100Gbit (the measured link is inside one machine)"
        )
    else:
        raise InputError(
            "plan: the rate of the link is missing; type --link 100Gbit, or start --measure under mpirun -n 2"
        )
    inside = measured if measured and is_inside else INSIDE
    if "inside" in flags:
        inside = Link(inside.latency_s, parse_rate(flags["inside"], "inside"))
    if "inside_latency" in flags:
        inside = Link(parse_duration(flags["inside_latency"], "inside-latency"), inside.bytes_per_s)
    return Cluster(parse_count(flags.get("ranks_per_node", "1"), "ranks-per-node"), inside, between)


def measured(config: Config, flags: Mapping[str, Any], world: Transport, machine: Machine, apart: bool) -> Fit:
    """Returns what short runs on these ranks measure; all of them call it. `apart`: see `fit`."""
    seconds = positive(flags.get("seconds", "4"))
    if seconds is None:
        raise InputError(f"--seconds: {flags['seconds']!r} is not a number above 0; type for example 4")
    backend = machine.ops(config)
    reachable = machine.reaching(config, backend, machine.transport(config, world)).transport
    return fit(backend, resolve(config, reachable.world_size), reachable, seconds, machine.num_nodes, apart)
