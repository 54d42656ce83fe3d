"""The gradient exchange, for a training loop of your own."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.wires import FORMATS
from ddpgd.config.parsing import check_choice
from ddpgd.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI


def exchange(
    comm: "MPI.Intracomm",
    size: int,
    reduce: Literal["ordered", "fast"] = "ordered",
    wire: str = "float32",
    error_feedback: bool = False,
) -> Exchange:
    """Makes the object that sums gradients over ranks, for a training loop of your own with mpi4py.

    Every rank calls it, with the same arguments. `close()` frees its communicators.

    Args:
        comm: An mpi4py communicator, of which the exchange uses a duplicate.
        size: Elements of the gradient, float32 in host memory; 0: statistics alone.
        reduce: "ordered" gives the same bits on any number of ranks; "fast" uses MPI_Allreduce.
        wire: Form of gradients: "float32", or a row of `ddpgd.comm.wires.FORMATS` ("float16", "bfloat16", "int8"), which
            lose something and need "ordered".
        error_feedback: Add each step's encoding error to the next gradient.

    Returns:
        An `Exchange`; its `sum(num_micro_batches, gradient)` returns grads (size,) and `StepStats` sums.

    Raises:
        InputError: An argument is wrong.

    >>> import ddpgd, numpy
    >>> from mpi4py import MPI
    >>> exchange = ddpgd.exchange(MPI.COMM_WORLD, size=3)
    >>> def gradient(micro_batch, grads, stats):
    ...     grads[:] = micro_batch
    ...     stats[ddpgd.StepStats.SAMPLES] = 2
    >>> grads, stats = exchange.sum(4, gradient)
    >>> grads.tolist(), float(stats[ddpgd.StepStats.SAMPLES])
    ([6.0, 6.0, 6.0], 8.0)
    >>> exchange.close()
    """
    from ddpgd.comm.transports.mpi_host import MpiHost
    from ddpgd.kernels.reference.backend import Reference
    from ddpgd.run import build_exchange

    _check(size, reduce, wire)
    ops = Reference()
    codec = build_exchange.codec(wire, ops)
    return Exchange(MpiHost(comm), ops, int(size), codec, reduce, error_feedback=error_feedback)


def _check(size: object, reduce: str, wire: str) -> None:
    """Refuses arguments of `exchange` that are wrong, alone or together."""
    check_choice(wire, ("float32", *FORMATS), "exchange: wire")
    check_choice(reduce, ("ordered", "fast"), "exchange: reduce")
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
        raise InputError(f"exchange: size {size!r} must be a whole number of at least 0")
    if wire != "float32" and reduce == "fast":
        raise InputError(f"exchange: reduce 'fast' knows no wire {wire!r}; pass reduce='ordered'")
