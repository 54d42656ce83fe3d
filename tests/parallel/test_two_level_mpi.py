"""The exchange of two levels over MPI, on nodes that are made of the ranks of one machine."""

import numpy as np
import pytest
from mpi4py import MPI

from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.comm.wires import FORMATS
from ddpgd.kernels.words import Tail
from oracles import bits, tree_fold
from two_level_laws import COUNTS, NODES, SIZES, Nodes, counted, make, make_rows, predicted, sums

pytestmark = pytest.mark.mpi

over_nodes = pytest.mark.parametrize("nodes", [nodes for nodes in NODES if sum(nodes) == MPI.COMM_WORLD.size])


@over_nodes
@pytest.mark.parametrize("size", SIZES)
def test_every_rank_holds_the_canonical_sum(comm: MPI.Intracomm, nodes: Nodes, size: int) -> None:
    exchange = make(MpiHost(comm), nodes, size)
    for count in COUNTS:
        rows = make_rows(count, size)
        wanted = tree_fold(list(rows))
        for asking in (-1, comm.size - 1):
            grads, tail = sums(exchange, rows, stop=comm.rank == asking)
            wanted[size + Tail.STOP] = asking >= 0
            np.testing.assert_array_equal(bits(grads), bits(wanted[:size]))
            np.testing.assert_array_equal(bits(tail), bits(wanted[size:]))
    exchange.close()


@over_nodes
@pytest.mark.parametrize("wire", ["float32", *FORMATS])
@pytest.mark.parametrize("count", [1, 7, 13])
def test_counted_bytes_are_the_tables(comm: MPI.Intracomm, nodes: Nodes, wire: str, count: int) -> None:
    for size in SIZES:
        inside, between = predicted(nodes, size, wire, count)
        found = counted(MpiHost(comm), nodes, size, wire, count)
        assert found == (inside.num_bytes[comm.rank], between.num_bytes[comm.rank])


@over_nodes
@pytest.mark.parametrize("wire", FORMATS)
def test_lossy_wires_leave_replicas_equal(comm: MPI.Intracomm, nodes: Nodes, wire: str) -> None:
    exchange = make(MpiHost(comm), nodes, 5000, wire, feedback=True)
    for count in COUNTS:
        grads, tail = sums(exchange, make_rows(count, 5000))
        assert len(set(comm.allgather(grads.tobytes() + tail.tobytes()))) == 1
