"""All-to-all made ready for many calls: through shared memory and through messages, with ranks that come late."""

import os
import time

import numpy as np
import pytest
from mpi4py import MPI

from ddpgd.comm.transport import Transport, gathering
from ddpgd.comm.transports import shared_all_to_all
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.kernels.device_ops import Array

pytestmark = pytest.mark.mpi

NUM_ROUNDS = 12


@pytest.fixture(params=["shared memory", "too large", "several nodes", "no room"])
def transport(request: pytest.FixtureRequest, comm: MPI.Intracomm, monkeypatch: pytest.MonkeyPatch) -> MpiHost:
    if request.param == "too large":
        monkeypatch.setattr(shared_all_to_all, "MOST_BYTES", 1000)
    if request.param == "several nodes":
        monkeypatch.setattr(shared_all_to_all, "node", lambda: f"node{comm.rank % 2}")
    if request.param == "no room":
        monkeypatch.setattr(shared_all_to_all, "share_memory", lambda _world, _num_bytes: None)
    return MpiHost(comm)


def values(source: int, target: int, number: int, round: int) -> Array:
    """Returns what `source` sends to `target` in a round, of another length, dtype and content for each pair and number."""
    dtype = np.float32 if number else np.uint8
    return (np.arange(500 + 7 * source + 3 * target + number) % 50 + 10 * source + target + round).astype(dtype)


def be_late(transport: Transport, round: int) -> None:
    """Lets another rank come late in every round."""
    if round % transport.world_size == transport.rank:
        time.sleep(0.005)


def test_every_round_brings_its_own_values(transport: MpiHost) -> None:
    ranks, own = range(transport.world_size), transport.rank
    count = {(source, target): (source + target) % 3 for source in ranks for target in ranks if source != target}
    sends = [[values(own, peer, number, 0) for number in range(count.get((own, peer), 0))] for peer in ranks]
    receives = [
        [np.zeros_like(values(peer, own, number, 0)) for number in range(count.get((peer, own), 0))] for peer in ranks
    ]
    run = transport.all_to_all_init(sends, receives)
    for round in range(NUM_ROUNDS):
        for peer, arrays in enumerate(sends):
            for number, array in enumerate(arrays):
                array[...] = values(own, peer, number, round)
        be_late(transport, round)
        run()
        for peer, arrays in enumerate(receives):
            for number, array in enumerate(arrays):
                np.testing.assert_array_equal(array, values(peer, own, number, round))
    assert transport.bytes_sent == NUM_ROUNDS * sum(array.nbytes for arrays in sends for array in arrays)
    transport.close()


def test_a_gathering_gives_every_rank_every_part(transport: MpiHost) -> None:
    ranks, own = range(transport.world_size), transport.rank
    parts = [[np.zeros_like(values(peer, 0, number, 0)) for number in range(2)] for peer in ranks]
    run = transport.all_to_all_init(*gathering(parts, own))
    for round in range(NUM_ROUNDS):
        for number, array in enumerate(parts[own]):
            array[...] = values(own, 0, number, round)
        be_late(transport, round)
        run()
        for peer in ranks:
            for number, array in enumerate(parts[peer]):
                np.testing.assert_array_equal(array, values(peer, 0, number, round))
    transport.close()


def test_two_of_them_take_turns_and_nobody_reads_what_comes_later(transport: MpiHost) -> None:
    ranks, own = range(transport.world_size), transport.rank
    pairs = []
    for _ in range(2):
        sent, received = np.zeros(3000), [[np.zeros(3000)] if peer != own else [] for peer in ranks]
        run = transport.all_to_all_init([[sent] if peer != own else [] for peer in ranks], received)
        pairs.append((sent, received, run))
    for round in range(NUM_ROUNDS):
        for stage, (sent, received, run) in enumerate(pairs):
            sent.fill(100 * round + 10 * stage + own)
            be_late(transport, round + stage)
            run()
            sent.fill(-1)
            assert {float(array.min()) for arrays in received for array in arrays} == {
                100.0 * round + 10 * stage + peer for peer in ranks if peer != own
            }
    transport.close()


def test_nothing_lies_in_the_folder_afterwards(comm: MPI.Intracomm, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = comm.bcast(str(tmp_path_factory.mktemp("shared")) if comm.rank == 0 else "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddpgd.comm.shared_memory._FOLDER", folder)
        transport = MpiHost(comm)
        parts = [[np.full(1000, peer, np.float32)] for peer in range(comm.size)]
        transport.all_to_all_init(*gathering(parts, comm.rank))()
        comm.Barrier()
        assert not os.listdir(folder)
    transport.close()
