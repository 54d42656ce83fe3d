"""Traits of each transport: the table from which every refusal is worded, and `auto` chooses."""

from typing import NamedTuple


class TransportTraits(NamedTuple):
    """`launched`: it joins ranks of a launcher. `wants_gpu`: its arrays lie on GPUs. `shares_gpu`: two ranks may use one.

    `overlaps`: messages travel while a rank computes.
    """

    launched: bool
    wants_gpu: bool
    shares_gpu: bool
    overlaps: bool = False


TRANSPORTS = {
    "alone": TransportTraits(launched=False, wants_gpu=False, shares_gpu=True),
    "threads": TransportTraits(launched=False, wants_gpu=False, shares_gpu=True),
    "mpi-host": TransportTraits(launched=True, wants_gpu=False, shares_gpu=True),
    "mpi-cuda": TransportTraits(launched=True, wants_gpu=True, shares_gpu=True),
    "nccl": TransportTraits(launched=True, wants_gpu=True, shares_gpu=False, overlaps=True),
}


def refusal(name: str, num_launched: int, has_gpu: bool, share_gpu: bool) -> str:
    """Returns the reason why the transport `name` cannot serve, and what to type; empty if it can."""
    can = TRANSPORTS[name]
    if num_launched > 1 and not can.launched:
        wanted = " or ".join(other for other, its in TRANSPORTS.items() if its.launched)
        return f"mpirun started {num_launched} ranks, which need {wanted}; drop the flag, or start without mpirun"
    if can.wants_gpu and not has_gpu:
        return "it moves arrays of GPUs, and the run computes on CPUs; type --transport mpi-host"
    if share_gpu and num_launched > 1 and not can.shares_gpu:
        return "it wants a GPU for each rank, and --share-gpu was asked for; type --transport mpi-host"
    return ""
