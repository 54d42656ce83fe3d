"""Fusion: ops that are asked for together run in fewer launches, with the bits that they have alone.

Small steps cost what their launches cost. `Cuda.fused` records calls of ops; `joined` puts those of `FUSIONS` together.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from ddpgd.kernels.cuda.dense import ACTIVATIONS, BLOCK, Dense, Tile
from ddpgd.kernels.cuda.launcher import THREADS, Launcher, count_of
from ddpgd.kernels.cuda.sums import Sums, spans
from ddpgd.kernels.cuda.updates import decision_words, update_arguments
from ddpgd.kernels.device_ops import Array

HEAD_ROWS, HEAD_COLUMNS, HEAD_CLASSES = 16, 128, 16
"""Rows of a micro-batch and columns of dx that a thread block of `head` takes, and its most classes; see `fused.cuh`."""
MOST_PARTS = 2048
"""Thread blocks that decide and update together, at most; `update.cuh` says the same."""
LOSSES = ("cross_entropy", "mean_squared_error")


class Call(NamedTuple):
    """A call of an op of `Ops` that was recorded."""

    op: str
    arguments: tuple[Any, ...]


Run = Callable[[], None]
Op = TypeVar("Op", bound=Callable[..., None])


def fusable(op: Op) -> Op:
    """Makes calls of `op`, a method, be recorded where its object's `recorded` is a list."""

    @wraps(op)
    def record_or_run(self: Any, *arguments: Any) -> None:
        if self.recorded is None:
            op(self, *arguments)
        else:
            self.recorded.append(Call(op.__name__, arguments))

    return cast("Op", record_or_run)


def normalisation(mean: float, std: float) -> tuple[np.float32, np.float32]:
    """Returns factor and shift of pixels: (pixel / 255 - mean) / std = pixel factor - shift."""
    return np.float32(1.0 / (255.0 * std)), np.float32(mean / std)


class Fusion(NamedTuple):
    """A row of `FUSIONS`. `ops`: names of neighbouring calls, alternatives for each; `make`: what runs them, or None."""

    ops: tuple[tuple[str, ...], ...]
    make: Callable[["Fuser", Sequence[Call]], Run | None]


class Fuser:
    """The fused kernels of one device and precision."""

    def __init__(self, launch: Launcher, dense: Dense, sums: Sums) -> None:
        self._launch = launch
        self._dense = dense
        self._sums = sums
        self._tables: dict[tuple[int, ...], Array] = {}

    def joined(self, calls: list[Call], alone: Callable[[Call], None]) -> list[Run]:
        """Returns what runs `calls`; `alone` runs those that are not fused."""
        rest, runs = _params_last(calls), []
        while rest:
            count, run = next(filter(None, (self._try(fusion, rest) for fusion in FUSIONS)), (1, None))
            runs.append(run or partial(alone, rest[0]))
            rest = rest[count:]
        return runs

    def _try(self, fusion: Fusion, calls: list[Call]) -> tuple[int, Run] | None:
        count = len(fusion.ops)
        if len(calls) < count or any(call.op not in ops for call, ops in zip(calls, fusion.ops, strict=False)):
            return None
        run = fusion.make(self, calls[:count])
        return None if run is None else (count, run)

    def gather_forward(self, calls: Sequence[Call]) -> Run | None:
        """Joins `gather_normalise` and the `dense_forward` of what it puts out."""
        (images, labels, order, cursor, offset, mean, std, x, y), forward = calls[0].arguments, calls[1].arguments
        inputs, (weight,), (bias,), activation, micro_batch, out = forward
        if inputs is not x or self._dense.uses_library(micro_batch, *weight.shape):
            return None
        (num_rows, num_inputs), num_outputs = x.shape, weight.shape[1]
        tile = self._dense.tile([(num_rows, num_outputs)])
        samples = images, labels, order, cursor, np.int64(offset), *normalisation(mean, std), x, y
        sizes = map(np.int32, (num_rows, num_inputs, num_outputs, ACTIVATIONS[activation]))
        arguments = *samples, weight, bias, out, *sizes
        grid = count_of(num_rows, tile[0]), count_of(num_outputs, tile[1])
        return self._run(f"gather_forward_{tile[0]}x{tile[1]}", "forward", tile, grid, *arguments)

    def head(self, calls: Sequence[Call]) -> Run | None:
        """Joins the last layer's `dense_forward`, the loss, and the layer's `dense_backward_input`."""
        x, (weight,), (bias,), activation, micro_batch, logits = calls[0].arguments
        lossy, labels, _, control, dlogits, tails, *options = calls[1].arguments
        dout, (same_weight,), same_x, input_activation, _, dx = calls[2].arguments
        chained = lossy is logits and dout is dlogits and same_weight is weight and same_x is x
        (num_rows, num_inputs), num_classes = x.shape, weight.shape[1]
        small = num_classes <= HEAD_CLASSES and not self._dense.uses_library(micro_batch, num_inputs, num_classes)
        if not chained or activation != "identity" or not small:
            return None
        groups, chunks = len(tails), count_of(min(micro_batch, num_rows), HEAD_ROWS)
        partials, counters = self._sums("head", 2 * groups, groups, chunks)
        sizes = num_rows, num_inputs, num_classes, micro_batch, ACTIVATIONS[input_activation]
        outputs = dlogits, dx, tails, np.int64(tails.strides[0] // tails.itemsize), partials, counters
        smoothing = np.float32((*options, 0.0)[0])
        arguments = x, weight, bias, labels, *map(np.int32, sizes), smoothing, control, *outputs
        grid = chunks, count_of(num_inputs, HEAD_COLUMNS), groups
        tile = (HEAD_ROWS, HEAD_CLASSES)
        return self._run(f"head_{calls[1].op}", "forward", tile, grid, *arguments)

    def params(self, calls: Sequence[Call]) -> Run | None:
        """Joins `dense_backward_params` of all layers."""
        layers = [call.arguments for call in calls]
        num_rows, micro_batch = layers[0][0].shape[0], layers[0][2]
        shapes = [(x.shape[1], dout.shape[1]) for x, dout, *_ in layers]
        if any(self._dense.uses_library(micro_batch, *shape) for shape in shapes):
            return None
        groups = count_of(num_rows, micro_batch)
        tile = self._dense.tile(shapes, groups)
        blocks = [count_of(rows, tile[0]) * count_of(columns, tile[1]) for rows, columns in shapes]
        table = self._table(layers, blocks)
        arguments = table, *map(np.int32, (len(layers), num_rows, micro_batch))
        grid = sum(blocks), 1, groups
        return self._run(f"params_of_layers_{tile[0]}x{tile[1]}", "params", tile, grid, *arguments)

    def decide_and_update(self, calls: Sequence[Call]) -> Run | None:
        """Joins `decide` and the `update` that follows it, where all thread blocks run at once."""
        grads, tail, rates, cursor, control, history, policy = calls[0].arguments
        rule, params, same_grads, state, same_control, weight_decay, hyper, weights = calls[1].arguments
        parts, _, span = spans(grads.size)
        kernel = f"decide_and_{rule}"
        fitting = min(MOST_PARTS, self._launch.most_blocks("optimizer.cu", kernel, THREADS))
        if same_grads is not grads or same_control is not control or parts > fitting:
            return None
        words = decision_words(tail, rates, cursor, control, history, policy)
        arguments = *update_arguments(params, grads, state, weight_decay, hyper, weights), *words, span, np.int32(parts)
        scratch = self._sums("decide_and_update", 1, 1, parts)
        grid, block = (parts,), (THREADS,)
        return lambda: self._launch("optimizer.cu", kernel, grid, block, *arguments, *scratch, cooperative=True)

    def _run(self, kernel: str, product: str, tile: Tile, grid: tuple[int, ...], *arguments: Any) -> Run:
        """Returns the launch of a kernel of `fused.cu`, with the shared memory that the product takes."""
        shared = self._dense.shared_bytes(product, tile)
        return lambda: self._launch("fused.cu", kernel, grid, BLOCK, *arguments, shared_bytes=shared)

    def _table(self, layers: Sequence[tuple[Any, ...]], blocks: list[int]) -> Array:
        """Returns the rows of `LayerParams` in `fused.cuh`; made once for the same arrays, in a rehearsal at the latest."""
        words, first = [], 0
        for (x, dout, _, dweight, dbias), count in zip(layers, blocks, strict=True):
            words += [array.data.ptr for array in (x, dout, dweight, dbias)]
            words += [dweight.strides[0] // 4, dbias.strides[0] // 4, x.shape[1], dout.shape[1], first]
            first += count
        key = tuple(words)
        if key not in self._tables:
            self._tables[key] = self._launch.from_host(np.array(words, np.int64))
        return self._tables[key]


FUSIONS = (
    Fusion((("decide",), ("update",)), Fuser.decide_and_update),
    Fusion((("gather_normalise",), ("dense_forward",)), Fuser.gather_forward),
    Fusion((("dense_forward",), LOSSES, ("dense_backward_input",)), Fuser.head),
    *(Fusion((("dense_backward_params",),) * count, Fuser.params) for count in range(8, 0, -1)),
)
"""Fusions, those that are tried first before others."""

OUTPUTS = {
    "gather_normalise": (7, 8),
    "gather_augment": (8, 9),
    "dropout": (4,),
    "dense_forward": (5,),
    "dense_backward_params": (3, 4),
    "dense_backward_input": (5,),
    **dict.fromkeys(LOSSES, (4, 5)),
    "decide": (3, 4, 5),
    "update": (1, 3, 7),
    "update_matrix": (0, 2, 6),
}
"""The places of an op's outputs among its arguments."""


def _params_last(calls: list[Call]) -> list[Call]:
    """Moves `dense_backward_params` behind the others, which must not write what it reads."""
    params = [call for call in calls if call.op == "dense_backward_params"]
    others = [call for call in calls if call.op != "dense_backward_params"]
    for call in params:
        later = calls[calls.index(call) + 1 :]
        written = [other.arguments[place] for other in later for place in OUTPUTS[other.op]]
        assert not any(array is read for array in written for read in call.arguments[:2]), "an input is overwritten"
    return others + params
