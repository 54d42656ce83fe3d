"""Loading of the data on all ranks: one rank of each node fetches, reads and unpacks them, and hands them to the others."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm import bulk
from ddpgd.comm.agreement import on_all_ranks, on_root
from ddpgd.comm.launcher import Launch, node
from ddpgd.comm.transport import Transport
from ddpgd.data import download, mnist, synthetic
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def load_data(given: str | None, world: Transport, launch: Launch, report: Callable[[str], None]) -> Dataset:
    """Loads the samples, on every rank, into memory of its own.

    Rank 0's environment says for all where they are: ranks elsewhere may have another one.

    Args:
        given: As `--data`; None: $DDPGD_DATA, the cache, or a download.
        world: All ranks; every rank calls it.
        launch: What the launcher told this process.
        report: Is told what is fetched.

    Raises:
        InputError: On all ranks, if a rank that reads has no data, or any rank has other data than rank 0.
    """
    choice = on_root(world, lambda: given if given is not None else os.environ.get("DDPGD_DATA"))
    place = on_all_ranks(world, lambda: download.locate(choice, os.environ))
    directory = place.directory
    if directory is None:
        data = synthetic.make()
    else:
        if place.is_cache:
            on_all_ranks(world, lambda: download.fetch(directory, report) if launch.local_rank == 0 else directory)
        nodes = world.all_gather_objects(node())
        inside = world.split(nodes.index(node()))
        data = on_all_ranks(world, lambda: _shared(inside, lambda: mnist.load(directory)))
        if place.is_cache:
            on_all_ranks(world, lambda: download.check_fetched(data))
    digests = world.all_gather_objects(data.sha256)
    for peer, digest in enumerate(digests):
        if digest != digests[0]:
            raise InputError(f"rank {peer} has other data than rank 0; give every node the same files by --data")
    return data


def _shared(inside: Transport, load: Callable[[], Dataset]) -> Dataset:
    """Returns, on all ranks of a node, what load() returns on the first of them. InputError: it cannot be loaded."""
    loaded: list[Dataset] = []

    def work() -> tuple[Dataset, list[tuple[int, ...]]]:
        loaded.append(load())
        arrays = [getattr(loaded[0], name) for name in _ARRAYS]
        return _with_arrays(loaded[0], [array[:0] for array in arrays]), [array.shape for array in arrays]

    facts, shapes = on_root(inside, work)
    data = loaded[0] if loaded else _with_arrays(facts, [np.empty(shape, np.uint8) for shape in shapes])
    for name in _ARRAYS:
        bulk.broadcast(inside, getattr(data, name))
        getattr(data, name).setflags(write=False)
    return data


def _with_arrays(data: Dataset, arrays: Sequence[NDArray[np.uint8]]) -> Dataset:
    named: dict[str, Any] = dict(zip(_ARRAYS, arrays, strict=True))
    return replace(data, **named)
