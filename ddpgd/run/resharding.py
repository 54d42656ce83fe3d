"""What survives of a run: a checkpoint's arrays, from live vectors and back to them, at any number of ranks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.message_plan import segments
from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout
from ddpgd.training.state import TrainState

Arrays = Mapping[str, NDArray[Any]]

TAKEN_OVER_AS = {"sent": "owned"}
"""At another number of ranks: what was kept of pieces on their way is kept of the sums of their owners."""


def gather(backend: Ops, transport: Transport, layout: Layout, state: TrainState) -> dict[str, NDArray[Any]]:
    """All that a checkpoint holds; every rank calls it. One's own vector NAME of rank R is called NAME.R."""
    # Copies: ranks that are threads go on while this one looks at their arrays.
    own = {name: np.array(backend.to_host(vector)) for name, vector in state.per_rank.items()}
    everybody = transport.all_gather_objects(own) if own else []
    host = backend.to_host(state.params)
    arrays = {f"params.{tensor.name}": tensor.view(host) for tensor in layout.tensors}
    arrays |= {name: backend.to_host(vector) for name, vector in state.replicated.items()}
    return arrays | {f"{name}.{rank}": array for rank, theirs in enumerate(everybody) for name, array in theirs.items()}


def params(layout: Layout, arrays: Arrays) -> NDArray[np.float32]:
    """The params of a checkpoint, float32 (layout.size,), on the host."""
    vector = np.zeros(layout.size, np.float32)
    for tensor in layout.tensors:
        tensor.view(vector)[...] = arrays[f"params.{tensor.name}"]
    return vector


def restore(backend: Ops, transport: Transport, state: TrainState, arrays: Arrays, world_size: int) -> None:
    """Fills live vectors from a checkpoint that `world_size` ranks wrote.

    By as many ranks, each goes on with its own. By others: of residuals, each takes a segment of their sum; of other
    vectors, the mean.
    """
    for name, vector in state.replicated.items():
        backend.upload(arrays[name], vector)
    found = {name: [arrays[f"{name}.{rank}"] for rank in range(world_size)] for name in state.per_rank}
    if world_size == transport.world_size:
        mine = {name: theirs[transport.rank] for name, theirs in found.items()}
    else:
        mine = _shares(found, transport)
    for name, vector in state.per_rank.items():
        backend.upload(mine[name], vector)


def how_shared(state: TrainState) -> list[str]:
    """What `restore` does at another number of ranks, in words."""
    kinds = {"residual" if name.startswith("residual") else "other" for name in state.per_rank}
    texts = {
        "residual": "what ranks kept back is summed, and each takes a segment of it",
        "other": "each takes the mean of what the ranks' own optimizers remembered",
    }
    return [texts[kind] for kind in sorted(kinds)]


def _shares(found: Mapping[str, list[NDArray[Any]]], transport: Transport) -> dict[str, NDArray[Any]]:
    """This rank's part of the vectors of another number of ranks."""
    kept = {name: np.zeros_like(theirs[0]) for name, theirs in found.items()}
    for name, theirs in found.items():
        total: NDArray[np.float32] = np.sum(theirs, axis=0, dtype=np.float32)
        kind, _, what = name.rpartition(".")
        if kind.startswith("residual"):
            segment = segments(total.size, transport.world_size)[transport.rank]
            kept[f"{kind}.{TAKEN_OVER_AS.get(what, what)}"][segment] += total[segment]
        else:
            kept[name] += total / np.float32(len(theirs))
    return kept
