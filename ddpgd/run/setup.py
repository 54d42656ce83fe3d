"""From a launcher's environment to ranks that are joined, and end together; the evaluation of a checkpoint on them."""

import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ddpgd.comm.launcher import Launch, node
from ddpgd.comm.transport import Alone, Transport
from ddpgd.errors import DdpgdError, InputError
from ddpgd.kernels.cuda import device as cuda_device
from ddpgd.run import checkpoint_search, inference
from ddpgd.run.device import mpi_world
from ddpgd.run.failures import as_one_line
from ddpgd.run.loading import load_data
from ddpgd.run.stderr import say
from ddpgd.run.summary import Evaluation
from ddpgd.watch import joining

Say = Callable[[str], None]


def join(launch: Launch, may_use_gpu: bool = False) -> Transport:
    """Returns the transport between all ranks that were launched.

    With `may_use_gpu`, a GPU becomes the current one first: a CUDA-aware MPI library looks for it when it starts.

    Raises:
        InputError: MPI is missing, or is not the launcher's.
    """
    is_alone = launch.world_size == 1
    # The process that watches is made before there is anything of a GPU in this one.
    with nullcontext() if is_alone else joining.watched(os.environ):
        if may_use_gpu:
            cuda_device.select(launch.local_rank)
        if is_alone:
            return Alone()
        transport = mpi_world(f"{launch.launcher} started {launch.world_size} ranks")
    if transport.world_size != launch.world_size:
        raise InputError(
            f"{launch.launcher} started {launch.world_size} ranks, but the MPI library of mpi4py sees "
            f"{transport.world_size}: they do not match; use the mpirun that belongs to that library"
        )
    return transport


def evaluate_checkpoint(path: Path, data: str | None, world: Transport, launch: Launch) -> Evaluation:
    """Computes test loss and accuracy of a checkpoint, on all ranks.

    Args:
        path: A run folder, whose best or newest checkpoint is taken, or a checkpoint file.
        data: As `--data`; None: the data that the run was trained on.
        world: All ranks that were launched.
        launch: What the launcher told this process.

    Raises:
        InputError: There is no whole checkpoint, or no data of its image shape. On all ranks.
    """
    _, saved = checkpoint_search.find_on_root(world, lambda: checkpoint_search.find_best(path, say))
    dataset = load_data(saved.config.get("data") if data is None else data, world, launch, say)
    loss_mean, accuracy = inference.evaluate(saved, dataset, world)
    return Evaluation(
        step=saved.counters["step"],
        test_loss_mean=loss_mean if math.isfinite(loss_mean) else None,
        test_accuracy=accuracy,
        test_samples=len(dataset.test_labels),
        data=dataset.source,
        world_size=world.world_size,
    )


@contextmanager
def ending_all_on_failure(world: Transport) -> Iterator[None]:
    """Ends all ranks when this one fails with anything but a `DdpgdError`, which all ranks raise alike.

    A foreseeable failure is told in one line, any other with its traceback.
    """
    try:
        yield
    except DdpgdError:
        raise
    except BaseException as error:
        if world.world_size == 1:
            raise
        line = as_one_line(error)
        # Where all ranks fail alike, the first that speaks ends the others before they do.
        time.sleep(min(1.0, 0.05 * world.rank))
        with suppress(OSError):
            print(f"ddpgd: rank {world.rank} of {world.world_size} on {node()} failed: {line or ''}", file=sys.stderr)
            if line is None:
                traceback.print_exc()
            sys.stderr.flush()
        world.abort(line.exit_code if line else 1)
