"""`ddpgd descend` over MPI ranks: the lines of one rank."""

import pytest
from mpi4py import MPI

from ddpgd.comm.transport import Alone
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.lab import command


@pytest.mark.mpi
@pytest.mark.parametrize(
    "flags", [{"function": "line", "batch": 2}, {"function": "xor"}, {"function": "xor", "method": "lbfgs"}]
)
def test_ranks_have_the_bits_of_one(flags: dict[str, object]) -> None:
    world = MpiHost(MPI.COMM_WORLD)
    assert command.lines({"steps": 12}, flags, world) == command.lines({"steps": 12}, flags, Alone())
    world.close()
