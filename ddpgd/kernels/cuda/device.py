"""The GPU of a rank: chosen from its local rank, before MPI starts, or the reason why there is none."""

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

QUEUES = "32"
"""Queues of the device for streams, the most there are: a stream that waits in one of its own holds up no other."""

MATRIX_CAPABILITY = 80
"""From which compute capability on tensor cores take tf32 and bfloat16."""


@dataclass(frozen=True)
class Device:
    """A GPU: its index in this process, its name, what tells it from all others, its compute capability, as in 90."""

    index: int
    name: str
    identity: str
    capability: int


class Cuda(NamedTuple):
    """Versions as CUDA counts them, 12080 for 12.8: the driver's, and that of the runtime that CuPy brings."""

    driver: int
    runtime: int


def versions() -> Cuda | None:
    """None: there is no CuPy, or no driver (which counts itself as 0). No GPU is needed: too old a driver shows none."""
    try:
        import cupy

        runtime = cupy.cuda.runtime
        found = Cuda(int(runtime.driverGetVersion()), int(runtime.runtimeGetVersion()))
    except (ImportError, RuntimeError):
        return None
    return found if found.driver else None


def select(local_rank: int) -> tuple[Device | None, str]:
    """Makes a GPU the current one, and tells which; or None, and why there is none.

    Where a launcher shows each rank its own GPU only, that is the one; else they are counted by local rank, and begin
    again at the first where there are fewer than ranks, which `start` refuses or allows. Selecting does not hide the
    other GPUs, as CUDA_VISIBLE_DEVICES would: ranks of a node could then not read each other's memory.
    """
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", QUEUES)  # read when CUDA starts
    try:
        import cupy
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        return None, "CuPy is not installed" if absent else f"CuPy cannot be loaded: {_first_line(error)}"
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
        if count == 0:
            return None, "CuPy finds no GPU"
        index = local_rank % count
        cupy.cuda.Device(index).use()
        properties: dict[str, Any] = runtime.getDeviceProperties(index)
    except runtime.CUDARuntimeError as error:
        return None, f"CuPy finds no GPU: {_first_line(error)}"
    capability = 10 * int(properties["major"]) + int(properties["minor"])
    # Slices of one GPU (MIG) have its address, and identifiers of their own: 16 bytes, which CuPy reads up to a zero,
    # even beyond them.
    identity = f"{cupy.cuda.Device(index).pci_bus_id} {bytes(properties.get('uuid', b''))[:16].hex()}"
    return Device(index, properties["name"].decode(), identity, capability), ""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip("= ")]
    return lines[0] if lines else type(error).__name__
