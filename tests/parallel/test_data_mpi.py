"""Ranks of several machines, whose environments differ, take the same data."""

from pathlib import Path

import pytest
from mpi4py import MPI

from ddpgd.comm.launcher import Launch
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.run.setup import load_data


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
