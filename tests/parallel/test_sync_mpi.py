"""Sparse, low-rank and local runs over MPI: ranks are equal where they combine, and hold the bits that threads hold."""

from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

from ddpgd.comm.transport import Transport
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.config.schema import Config
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run import build
from runs import digits

pytestmark = pytest.mark.mpi

NUM_STEPS = 10
LOCAL = {"sync": "local", "local_steps": 3}
WAYS: dict[str, dict[str, Any]] = {
    "topk": {"wire": "topk", "topk_density": 0.05},
    "powersgd": {"wire": "powersgd"},
    "local": LOCAL,
    "local, int8": LOCAL | {"wire": "int8", "error_feedback": True},
    "local, topk": LOCAL | {"wire": "topk"},
    "post-local, outer momentum": LOCAL | {"local_after": 2, "outer_lr": 0.7, "outer_momentum": 0.9},
}


def params_after(transport: Transport, way: str) -> bytes:
    """After a few steps of 7 micro-batches, the last of an epoch of 5."""
    config = Config(hidden=(12,), global_batch=50, micro_batch=7, lr=0.05, epochs=5, **WAYS[way])
    live = build.sync(Reference(), config, digits(), build.grid(config, transport), NUM_STEPS)
    step = 0
    while step < NUM_STEPS:
        step += live.run(step, 1, False, False).num_steps
    return np.asarray(live.state.params).tobytes()


@pytest.mark.parametrize("way", WAYS)
def test_ranks_are_equal_to_each_other_and_to_threads(comm: MPI.Intracomm, way: str) -> None:
    own = params_after(MpiHost(comm), way)
    as_threads = threads.run(comm.size, lambda transport: params_after(transport, way)) if comm.rank == 0 else None
    assert comm.bcast(as_threads) == comm.allgather(own)
