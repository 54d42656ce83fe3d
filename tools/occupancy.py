"""Occupancy: the thread blocks of a kernel that an SM holds at once, by its registers, shared memory and threads."""

from typing import NamedTuple

REGISTERS = 65536
_ROUND_REGISTERS, _ROUND_SHARED = 256, 128
_PARTITIONS = 4
"""Partitions of an SM, each with its part of the registers."""


class Sm(NamedTuple):
    """The limits of an SM. `reserved`: bytes of shared memory that each thread block takes beside its own."""

    warps: int
    blocks: int
    shared: int
    reserved: int = 1024


SMS = {
    "75": Sm(32, 16, 64 * 1024, 0),
    "80": Sm(64, 32, 164 * 1024),
    "86": Sm(48, 16, 100 * 1024),
    "89": Sm(48, 24, 100 * 1024),
    "90": Sm(64, 32, 228 * 1024),
    "100": Sm(64, 32, 228 * 1024),
    "120": Sm(48, 24, 100 * 1024),
}
"""From the tables of compute capabilities in the CUDA programming guide, by architecture."""


def warps(arch: str, threads: int, registers: int, shared: int) -> tuple[int, int]:
    """Returns the warps that an SM holds at once, and the most that it could.

    Args:
        arch: as in sm_90a, without sm_.
        threads: of a thread block.
        registers: of a thread.
        shared: bytes of shared memory of a thread block, static and dynamic.
    """
    sm = SMS[arch.rstrip("af")]
    block_warps = -(-threads // 32)
    warp_registers = -(-registers * 32 // _ROUND_REGISTERS) * _ROUND_REGISTERS
    by_registers = REGISTERS // _PARTITIONS // warp_registers * _PARTITIONS // block_warps
    block_shared = -(-(shared + sm.reserved) // _ROUND_SHARED) * _ROUND_SHARED
    by_shared = sm.shared // block_shared if block_shared else sm.blocks
    return min(sm.blocks, sm.warps // block_warps, by_registers, by_shared) * block_warps, sm.warps
