"""The contract of compressors: approximate sums of ranks' gradients in far fewer bytes than those have."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops

Array = NDArray[Any]


class Window(NamedTuple):
    """A tensor in the vector: its start and its shape; matrices are (K, N)."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def of(self, vector: Array) -> Array:
        """Returns this tensor in `vector` (n,), without a copy."""
        return vector[self.start : self.start + self.size].reshape(self.shape)


class Setup(NamedTuple):
    """All that compressors are made from.

    Attributes:
        transport: The ranks.
        ops: The backend where gradients are.
        size: Elements of the gradient: whole blocks.
        windows: All tensors of the gradient.
        batch_fraction: round -> the samples of a round over those of a full one; residuals are in units of full ones.
        epoch: round -> the pass over the data.
        seed: For random first guesses.
        options: Values of the options that belong to the wire.
        momentum: Factor of the momentum that the wire has in the optimizer's stead; 0: none.
        clip_norm: The largest norm of what a rank adds in a full round; 0: any.
    """

    transport: Transport
    ops: Ops
    size: int
    windows: Sequence[Window]
    batch_fraction: Callable[[int], float]
    epoch: Callable[[int], int]
    seed: int
    options: Mapping[str, Any]
    momentum: float = 0.0
    clip_norm: float = 0.0


class Compressor(Protocol):
    """Approximate sums, equal on all ranks bit for bit.

    Attributes:
        name: The value of `--wire`.
        needs_host: True if the host must take part.
        residuals: This rank's vectors of what was not sent yet, float32 (size,), by name. Checkpoints hold their sums
            over ranks, under these names.
        shared: Vectors by name that are equal on all ranks; checkpoints hold them.
    """

    name: str
    needs_host: bool
    residuals: dict[str, Array]
    shared: dict[str, Array]

    @property
    def bytes_sent(self) -> int:
        """Bytes that this rank has sent so far."""

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        """Replaces grads (size,), approximately, and tail (TAIL_WORDS,), exactly, by the sums over ranks.

        `round`: the number of sums before.
        """


class NoExchange:
    """`Compressor` that sends nothing: for steps after which ranks differ until they combine."""

    name = "none"
    needs_host = False
    bytes_sent = 0

    def __init__(self) -> None:
        self.residuals: dict[str, Array] = {}
        self.shared: dict[str, Array] = {}

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        pass
