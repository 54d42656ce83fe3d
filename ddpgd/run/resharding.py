"""A checkpoint's arrays: gathered from the live vectors of all ranks, and back to them, in any layout."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm import bulk
from ddpgd.comm.agreement import on_root
from ddpgd.comm.grid import Shape
from ddpgd.comm.transport import Transport
from ddpgd.comm.windows import segments
from ddpgd.config.schema import Config, from_table
from ddpgd.config.units import plural
from ddpgd.errors import InputError
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout
from ddpgd.run import build_network
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.training.state import TrainState

Arrays = Mapping[str, NDArray[Any]]

_TAKEN_OVER_AS = {"sent": "owned"}
"""In another layout, residuals of pieces on their way to an owner become residuals of the owners' sums."""


def gather(
    backend: Ops, transport: Transport, layout: Layout, state: TrainState, params: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """Returns, on rank 0, copies of all arrays of a checkpoint; every rank calls it.

    The vector NAME of the ranks that are R along the data axis is called NAME.R. `params`: the result of `whole_params`.
    """
    arrays: dict[str, NDArray[Any]] = {}
    held = state.held
    for name, vector in state.per_rank.items():
        part = backend.to_host(vector)
        for replica in range(held.shape.data):
            arrays[f"{name}.{replica}"] = bulk.gather_parts(transport, part, held.of_replica(replica), held.size)
    for name, part in state.divided.items():
        arrays[name] = bulk.gather_parts(transport, backend.to_host(part), held.optimizer, held.size)
    if transport.rank > 0:
        return {}
    arrays |= {f"params.{name}": tensor for name, tensor in layout.whole_tensors(params).items()}
    return arrays | {name: np.array(backend.to_host(vector)) for name, vector in state.replicated.items()}


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


class Change(NamedTuple):
    """The grids of ranks that wrote a checkpoint, and go on from it; `is_none`: each rank holds what it held then."""

    before: Shape
    now: Shape
    is_none: bool


def change(saved: Checkpoint, config: Config, now: Shape) -> Change:
    """Returns how the layout differs in which a run goes on, as `config` says, from that which wrote a checkpoint."""
    former = from_table(saved.config)
    before = build_network.grid_shape(former, saved.facts["world_size"])
    return Change(before, now, (before, former.stages) == (now, config.stages))


def restore(backend: Ops, transport: Transport, state: TrainState, arrays: Arrays, change: Change) -> None:
    """Fills live vectors from a checkpoint; rank 0 has its `arrays`, every rank calls it.

    Where no rank holds anything else than before, each gets its own vectors back. Else each gets a segment of the sum of all
    residuals, and the mean of all other vectors.

    Raises:
        InputError: the arrays are not those of this configuration; on all ranks.
    """
    num_replicas = change.before.data
    on_root(transport, lambda: _check(state, arrays, num_replicas))
    for name, vector in state.replicated.items():
        backend.upload(_broadcast(transport, vector, partial(_array, name, arrays)), vector)
    for name, part in state.divided.items():
        whole = _array(name, arrays) if transport.rank == 0 else None
        backend.upload(bulk.scatter_parts(transport, whole, state.held.optimizer), part)
    fill = _own if change.is_none else _shared_out
    for name, values in fill(transport, state, arrays, num_replicas).items():
        backend.upload(values, state.per_rank[name])


def describe(state: TrainState, change: Change) -> list[str]:
    """Returns what `restore` does where the layout changes, in words."""
    if change.is_none:
        return []
    kinds = {"residual" if _is_residual(name) else "other" for name in state.per_rank}
    texts = {
        "residual": "the residuals of all ranks are summed, and each rank takes a segment of the sum",
        "other": "each rank takes the mean of all ranks' optimizer vectors",
    }
    return [f"{_in_words(change.before)} before, {_in_words(change.now)} now: {texts[kind]}" for kind in sorted(kinds)]


def _in_words(shape: Shape) -> str:
    return plural(shape.data * shape.replica, "rank") + f" ({shape})" * (shape.replica > 1)


def _check(state: TrainState, arrays: Arrays, num_replicas: int) -> None:
    """Raises InputError if the arrays beside params are not exactly those that `state` has."""
    wanted = {name: vector.shape for name, vector in state.replicated.items()}
    wanted |= dict.fromkeys(state.divided, (state.held.size,))
    per_rank = (f"{name}.{replica}" for name, replica in product(state.per_rank, range(num_replicas)))
    wanted |= dict.fromkeys(per_rank, (state.held.size,))
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


def _array(name: str, arrays: Arrays) -> NDArray[Any]:
    return np.ascontiguousarray(arrays[name])


def _own(transport: Transport, state: TrainState, arrays: Arrays, num_replicas: int) -> dict[str, NDArray[Any]]:
    """Returns this rank's vectors as it had them."""
    found, held = {}, state.held
    for name, replica in product(state.per_rank, range(num_replicas)):
        whole = _array(f"{name}.{replica}", arrays) if transport.rank == 0 else None
        part = bulk.scatter_parts(transport, whole, held.of_replica(replica))
        if replica == held.shape.place(transport.rank).data:
            found[name] = part
    return found


def _shared_out(transport: Transport, state: TrainState, arrays: Arrays, num_replicas: int) -> dict[str, NDArray[Any]]:
    """Returns this rank's vectors: a segment of each residual's sum over ranks before, and the mean of the others."""
    found = {name: np.zeros(vector.shape, np.float32) for name, vector in state.per_rank.items()}
    shape = state.held.shape
    for name, values in found.items():
        total = _total(name, arrays, num_replicas) if transport.rank == 0 else None
        part = bulk.scatter_parts(transport, total, state.held.params)
        kind, _, what = name.rpartition(".")
        if _is_residual(name):
            segment = segments(part.size, shape.data)[shape.place(transport.rank).data]
            found[f"{kind}.{_TAKEN_OVER_AS.get(what, what)}"][segment] += part[segment]
        else:
            values += part
    return found


def _total(name: str, arrays: Arrays, num_replicas: int) -> NDArray[np.float32]:
    """Returns the sum over ranks of a vector; of one that is no residual, the mean."""
    total = np.array(arrays[f"{name}.0"], np.float32)
    for replica in range(1, num_replicas):
        total += arrays[f"{name}.{replica}"]
    return total if _is_residual(name) else total / np.float32(num_replicas)


def _is_residual(name: str) -> bool:
    return name.startswith("residual")
