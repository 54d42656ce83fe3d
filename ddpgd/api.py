"""What `import ddpgd` offers: training from a configuration, and the exchange for a reader's own loop."""

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.launcher import launch
from ddpgd.config.parsing import coerce
from ddpgd.config.schema import OPTIONS, Config
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import Tail
from ddpgd.run import build_exchange, setup
from ddpgd.training.stopping import StopRequest

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["Config", "Exchange", "Tail", "exchange", "train"]


def train(config: Config) -> dict[str, Any]:
    """Trains as `ddpgd train` would with the same options, on all ranks of the launcher; returns the run's summary.

    Raises InputError (bad option, data or folder), NonFiniteError, Interrupted (after a checkpoint): on all ranks alike.
    Any other failure, of one of several ranks, prints its traceback and ends all of them at once.
    """
    given = {field.name: getattr(config, field.name) for field in fields(config)}
    changed = {
        name: value if name == "resume" else coerce(OPTIONS[name], value, f"Config.{name}")
        for name, value in given.items()
        if value != getattr(_DEFAULT, name)
    }
    launched = launch(os.environ)
    stop = StopRequest()
    with stop.listening():
        world = setup.join(launched, may_use_gpu=config.backend != "numpy")
        with setup.ending_all_on_failure(world):
            return setup.start_run(changed, world, launched, stop)


def exchange(
    comm: "MPI.Intracomm", size: int, reduce: str = "ordered", wire: str = "float32", error_feedback: bool = False
) -> Exchange:
    """An `Exchange` of gradients of `size` float32 elements over a duplicate of an mpi4py communicator, host memory.

    `wire` and `error_feedback` are those of `ddpgd train`.
    """
    from ddpgd.comm.transports.mpi_host import MpiHost

    ops = Reference()
    return Exchange(MpiHost(comm), ops, size, build_exchange.codec(wire, ops), reduce, error_feedback=error_feedback)


_DEFAULT = Config()
