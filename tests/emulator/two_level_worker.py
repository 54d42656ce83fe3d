"""Ranks of mpirun sum rows in two levels, each with an emulated GPU: over NCCL alone, and over NCCL inside nodes.

python -m emulator.two_level_worker NODES, as in 2,2. Rank 0 prints the number of ranks whose sums are canonical.
"""

import os
import sys

import numpy as np

from ddpgd.comm import levels
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.launcher import launch
from ddpgd.comm.levels import Levels
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports import nccl
from ddpgd.comm.transports.staged import Staged
from ddpgd.config.schema import Config
from ddpgd.kernels.cuda.backend import Cuda
from ddpgd.kernels.cuda.device import Device
from ddpgd.kernels.device_ops import Array
from ddpgd.run import setup
from ddpgd.run.device import Machine
from oracles import bits, tree_fold
from two_level_laws import make_rows


def main() -> None:
    launched = launch(os.environ)
    world = setup.join(launched, may_use_gpu=True)
    with setup.ending_all_on_failure(world):
        ops = Cuda(launched.local_rank, "float32")
        nodes = [int(part) for part in sys.argv[1].split(",")]
        for transport, groups in (_over_nccl(ops, world, nodes), _over_both(ops, world, nodes)):
            check_sums(ops, transport, groups)
        obeying = world.all_gather_objects(True)
    if world.rank == 0:
        print(obeying.count(True))


def _over_nccl(ops: Cuda, world: Transport, nodes: list[int]) -> tuple[Transport, Levels]:
    transport, why = nccl.join(world, lambda: ops.stream)
    assert transport is not None, why
    groups = levels.split(transport, nodes)
    assert {groups.inside.name, groups.between.name} == {"nccl"}
    return transport, groups


def _over_both(ops: Cuda, world: Transport, nodes: list[int]) -> tuple[Transport, Levels]:
    """As a run does it where NCCL does not start between nodes."""
    machine = Machine(Device(0, "fake", str(world.rank), 90), "")
    transport = Staged(world, ops)
    groups = levels.split(transport, nodes, lambda group: machine.inside(Config(), ops, transport, group))
    assert (groups.inside.name, groups.between.name) == ("nccl", "mpi-host")
    return transport, groups


def check_sums(ops: Cuda, transport: Transport, groups: Levels) -> None:
    for size in (0, 1000, 5000):
        exchange = Exchange(transport, ops, size, levels=groups)
        assert exchange.needs_host == groups.between.needs_host
        for count in (1, 3, 8):
            rows = make_rows(count, size)

            def leaf(micro_batch: int, grads: Array, tail: Array, rows: Array = rows, size: int = size) -> None:
                ops.upload(rows[micro_batch, :size], grads)
                ops.upload(rows[micro_batch, size:], tail)

            wanted = tree_fold(list(rows))
            for found, meant in zip(exchange.sum(count, leaf), (wanted[:size], wanted[size:]), strict=True):
                np.testing.assert_array_equal(bits(ops.to_host(found)), bits(meant))


if __name__ == "__main__":
    main()
