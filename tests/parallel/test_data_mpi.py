"""Ranks of several machines, whose environments differ, take the same data, which one rank of each machine reads."""

from pathlib import Path

import pytest
from mpi4py import MPI

from ddpgd.comm.launcher import Launch
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.data import mnist
from ddpgd.errors import InputError
from ddpgd.run.loading import load_data
from runs import SMALL_SHAPE, small_digits, write_small_digits


@pytest.mark.mpi(min_size=2)
def test_rank_0_says_where_the_data_is(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others have nothing in their environments but an empty cache, from which they would fetch."""
    if comm.rank == 0:
        monkeypatch.setenv("DDPGD_DATA", "synthetic")
    else:
        monkeypatch.delenv("DDPGD_DATA", raising=False)
        monkeypatch.setenv("DDPGD_CACHE", str(tmp_path))
    data = load_data(None, MpiHost(comm), Launch("", comm.rank, comm.size, 0), print)
    assert data.source.startswith("synthetic")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.mpi
def test_one_rank_of_a_machine_unpacks_for_all(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place, read = comm.bcast(str(tmp_path)), []
    if comm.rank == 0:
        write_small_digits(tmp_path)

    def noting(directory: Path) -> mnist.Dataset:
        read.append(directory)
        return load(directory)

    load = mnist.load
    monkeypatch.setattr(mnist, "load", noting)
    data = load_data(place, MpiHost(comm), Launch("", comm.rank, comm.size, comm.rank), print)
    assert comm.allgather(len(read)) == [1] + [0] * (comm.size - 1)
    assert (data.sha256, data.image_shape, data.class_names) == (
        small_digits().sha256,
        SMALL_SHAPE,
        tuple("0123456789"),
    )
    assert not data.train_images.flags.writeable
    comm.barrier()


@pytest.mark.mpi
def test_what_the_reading_rank_finds_wrong_all_ranks_tell(comm: MPI.Comm, tmp_path: Path) -> None:
    place = comm.bcast(str(tmp_path))
    with pytest.raises(InputError, match="no train-images") as found:
        load_data(place, MpiHost(comm), Launch("", comm.rank, comm.size, comm.rank), print)
    assert len(set(comm.allgather(str(found.value)))) == 1
