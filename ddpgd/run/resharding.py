"""A checkpoint's arrays: gathered from the live vectors of all ranks, and back to them, at any number of ranks."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm import bulk
from ddpgd.comm.agreement import on_root
from ddpgd.comm.transport import Transport
from ddpgd.comm.windows import segments
from ddpgd.errors import InputError
from ddpgd.kernels.ops import Array, Ops
from ddpgd.params import Layout
from ddpgd.training.state import TrainState

Arrays = Mapping[str, NDArray[Any]]

_TAKEN_OVER_AS = {"sent": "owned"}
"""At another number of ranks, residuals of pieces on their way to an owner become residuals of the owners' sums."""


def gather(
    backend: Ops, transport: Transport, layout: Layout, state: TrainState, params: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """Returns, on rank 0, all arrays of a checkpoint; every rank calls it. The vector NAME of rank R is called NAME.R.

    `params`: the result of `whole_params`.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, vector in state.per_rank.items():
        gathered = bulk.gather(transport, backend.to_host(vector))
        arrays |= {f"{name}.{rank}": array for rank, array in enumerate(gathered)}
    for name, part in state.divided.items():
        arrays[name] = bulk.gather_parts(transport, backend.to_host(part), state.held.optimizer, state.held.size)
    if transport.rank > 0:
        return {}
    arrays |= {f"params.{name}": tensor for name, tensor in layout.whole_tensors(params).items()}
    return arrays | {name: backend.to_host(vector) for name, vector in state.replicated.items()}


def whole_params(backend: Ops, transport: Transport, state: TrainState) -> NDArray[np.float32]:
    """Returns, on the host of rank 0, the params of the whole network; every rank calls it."""
    return bulk.gather_parts(transport, backend.to_host(state.params), state.held.params, state.held.size)


def params(transport: Transport, layout: Layout, arrays: Arrays) -> NDArray[np.float32]:
    """Returns the params of a checkpoint, float32 (layout.size,), on the host of every rank; rank 0 has the `arrays`."""
    vector = np.zeros(layout.size, np.float32)
    if transport.rank == 0:
        layout.fill(vector, {name: arrays[f"params.{name}"] for name in layout.shapes})
    bulk.broadcast(transport, vector)
    return vector


def restore(backend: Ops, transport: Transport, state: TrainState, arrays: Arrays, world_size: int) -> None:
    """Fills live vectors from a checkpoint that `world_size` ranks wrote; rank 0 has its `arrays`, every rank calls it.

    If there are as many ranks now, each gets its own vectors back. If not, each gets a segment of the sum of all
    residuals, and the mean of all other vectors.

    Raises:
        InputError: the arrays are not those of this configuration; on all ranks.
    """
    on_root(transport, lambda: _check(state, arrays, world_size))
    for name, vector in state.replicated.items():
        backend.upload(_broadcast(transport, vector, partial(_array, name, arrays)), vector)
    for name, part in state.divided.items():
        whole = _array(name, arrays) if transport.rank == 0 else None
        backend.upload(bulk.scatter_parts(transport, whole, state.held.optimizer), part)
    if world_size == transport.world_size:
        mine = {name: _own(transport, vector, name, arrays) for name, vector in state.per_rank.items()}
    else:
        totals = {
            name: _broadcast(transport, vector, partial(_total, name, arrays, world_size))
            for name, vector in state.per_rank.items()
        }
        mine = _parts(totals, transport)
    for name, values in mine.items():
        backend.upload(values, state.per_rank[name])


def describe_resharding(state: TrainState) -> list[str]:
    """Returns what `restore` does at another number of ranks, in words."""
    kinds = {"residual" if _is_residual(name) else "other" for name in state.per_rank}
    texts = {
        "residual": "the residuals of all ranks are summed, and each rank takes a segment of the sum",
        "other": "each rank takes the mean of all ranks' optimizer vectors",
    }
    return [texts[kind] for kind in sorted(kinds)]


def _check(state: TrainState, arrays: Arrays, world_size: int) -> None:
    """Raises InputError if the arrays beside params are not exactly those that `state` has."""
    wanted = {name: vector.shape for name, vector in state.replicated.items()}
    wanted |= dict.fromkeys(state.divided, (state.held.size,))
    wanted |= {f"{name}.{rank}": vector.shape for name, vector in state.per_rank.items() for rank in range(world_size)}
    found = {name: array for name, array in arrays.items() if not name.startswith("params.")}
    for name in sorted(wanted.keys() ^ found.keys()):
        what = "no array" if name in wanted else "an array"
        raise InputError(
            f"the checkpoint holds {what} {name[:100]!r}, so it is of another version of ddpgd; use that version"
        )
    for name, shape in wanted.items():
        array = found[name]
        if array.shape != shape or array.dtype != np.float32:
            raise InputError(
                f"the checkpoint's array {name!r} is {array.dtype} {array.shape}, where float32 {shape} is wanted; "
                "choose another one"
            )


def _broadcast(transport: Transport, like: Array, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Returns what make() returns on rank 0, float32 of the shape of `like`, on every rank."""
    host = make() if transport.rank == 0 else np.empty(like.shape, np.float32)
    bulk.broadcast(transport, host)
    return host


def _own(transport: Transport, like: Array, name: str, arrays: Arrays) -> NDArray[Any]:
    """Returns this rank's vector of that name."""
    parts = [arrays[f"{name}.{rank}"] for rank in range(transport.world_size)] if transport.rank == 0 else []
    host = np.empty(like.shape, np.float32)
    bulk.scatter(transport, parts, host)
    return host


def _array(name: str, arrays: Arrays) -> NDArray[Any]:
    return np.ascontiguousarray(arrays[name])


def _total(name: str, arrays: Arrays, world_size: int) -> NDArray[np.float32]:
    """Returns the sum over ranks of a vector; of one that is no residual, the mean."""
    total = np.array(arrays[f"{name}.0"], np.float32)
    for rank in range(1, world_size):
        total += arrays[f"{name}.{rank}"]
    return total if _is_residual(name) else total / np.float32(world_size)


def _parts(totals: Mapping[str, NDArray[Any]], transport: Transport) -> dict[str, NDArray[Any]]:
    """Returns this rank's vectors: a segment of each residual, and all of the others."""
    parts = {name: np.zeros_like(total) for name, total in totals.items()}
    for name, total in totals.items():
        kind, _, what = name.rpartition(".")
        if _is_residual(name):
            segment = segments(total.size, transport.world_size)[transport.rank]
            parts[f"{kind}.{_TAKEN_OVER_AS.get(what, what)}"][segment] += total[segment]
        else:
            parts[name] += total
    return parts


def _is_residual(name: str) -> bool:
    return name.startswith("residual")
