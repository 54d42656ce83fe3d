"""Links between each two ranks, over MPI."""

from ddpgd.comm.transports.mpi_host import world
from ddpgd.doctor.links import measure


def test_all_ranks_know_all_pairs() -> None:
    transport = world()
    found = measure(transport)
    size = transport.world_size
    assert [(pair.first, pair.second) for pair in found] == [(a, b) for a in range(size) for b in range(a + 1, size)]
    assert all(pair.latency_s > 0 and pair.bytes_per_s > 1e5 for pair in found)
    assert transport.all_gather_objects(found) == [found] * size
