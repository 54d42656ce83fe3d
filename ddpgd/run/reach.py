"""The transport between the arrays of a backend: chosen, tried by all ranks, and explained in one line."""

from typing import NamedTuple

from ddpgd.comm.agreement import first_failure
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports.mpi_probe import why_not_cuda_aware
from ddpgd.comm.transports.staged import Staged
from ddpgd.errors import InputError
from ddpgd.kernels.ops import Ops


class Reached(NamedTuple):
    """A transport between arrays of a backend.

    Attributes:
        transport: The transport.
        why: The reason for which `auto` took it, as a clause; empty where there was nothing to choose.
    """

    transport: Transport
    why: str = ""


def reach(name: str, owns_gpu: bool, backend: Ops, world: Transport, has_stages: bool = False) -> Reached:
    """Returns the transport that --transport `name` means for the device arrays of `backend`; every rank calls it.

    `auto` takes NCCL where each rank has a GPU of its own and a trial succeeds on all ranks; else host memory.

    Args:
        name: The value of --transport.
        owns_gpu: True if no two ranks share a GPU.
        backend: The backend of a rank.
        world: The ranks.
        has_stages: True in a pipeline, whose ranks send while they compute: then the trial does so too.

    Raises:
        InputError: On all ranks: the named transport cannot serve.
    """
    if name == "mpi-cuda":
        return Reached(_mpi_cuda(backend, world))
    if name == "nccl":
        transport, why = _nccl(backend, world, has_stages)
        if transport is None:
            raise InputError(f"--transport nccl: {why}; --transport mpi-host does without")
        return Reached(transport)
    staged = Staged(world, backend) if world.needs_host else world
    if name != "auto" or world.world_size == 1:
        return Reached(staged)
    if not owns_gpu:
        return Reached(staged, "NCCL wants a GPU for each rank")
    transport, why = _nccl(backend, world, has_stages)
    return Reached(staged, why) if transport is None else Reached(transport, "each rank has a GPU of its own")


def reach_inside(backend: Ops, world: Transport, group: Transport) -> Transport | None:
    """Returns NCCL between the ranks of each node, of which `group` joins this rank's; None: a node cannot have it."""
    transport, why = _nccl(backend, group)
    return None if first_failure(world, why) else transport


def _nccl(backend: Ops, world: Transport, has_stages: bool = False) -> tuple[Transport | None, str]:
    """Returns the transport, or None and why, on all ranks alike."""
    try:
        from ddpgd.comm.transports import nccl
    except ImportError as error:
        absence = f"CuPy finds no NCCL ({error}); type pip install nvidia-nccl-cu13, or nvidia-nccl-cu12"
    else:
        absence = ""
    if why := first_failure(world, absence):
        return None, why
    return nccl.join(world, lambda: backend.stream, has_stages)


def _mpi_cuda(backend: Ops, world: Transport) -> Transport:
    from ddpgd.comm.transports.mpi_cuda import MpiCuda

    if why := first_failure(world, why_not_cuda_aware()):
        raise InputError(
            f"--transport mpi-cuda: MPI does not move arrays of GPUs here: {why}; type --transport mpi-host"
        )
    return MpiCuda(world, backend.synchronize)
