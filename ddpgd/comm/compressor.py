"""The contract of compressors: approximate sums of ranks' gradients in far fewer bytes than those have."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops

Array = NDArray[Any]


class Window(NamedTuple):
    """The place of a tensor in the vector: its start and its shape; matrices are (K, N)."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def of(self, vector: Array) -> Array:
        """Returns this tensor in `vector` (n,), without a copy."""
        return vector[self.start : self.start + self.size].reshape(self.shape)


class Setup(NamedTuple):
    """The arguments from which compressors are made.

    Attributes:
        transport: The ranks.
        ops: The backend where gradients are.
        size: Elements of the gradient: whole blocks.
        windows: All tensors of the gradient.
        batch_fraction: Returns the samples of a round over those of a full one; residuals are in units of full ones.
        epoch: Returns the epoch of a round.
        seed: The seed of random first guesses.
        options: Values of the options that belong to the wire.
        momentum: The factor of the momentum that the wire has instead of the optimizer; 0: none.
        clip_norm: The largest norm of a rank's gradient in a full round; 0: any.
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
        residuals: This rank's vectors of values not sent yet, float32 (size,), by name. Checkpoints hold their sums
            over ranks, under these names.
        replicated: Vectors by name that are equal on all ranks; checkpoints hold them.
    """

    name: str
    needs_host: bool
    residuals: dict[str, Array]
    replicated: dict[str, Array]

    @property
    def bytes_sent(self) -> int:
        """The bytes that this rank has sent so far."""

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        """Replaces a rank's values by their sums over ranks.

        Args:
            round: The number of sums before this one.
            grads: float32 (size,), whose sum is approximate.
            tail: float32 (TAIL_WORDS,), whose sum is exact.
        """


class NoExchange:
    """`Compressor` that sends nothing: for local steps, between which ranks differ."""

    name = "none"
    needs_host = False
    bytes_sent = 0

    def __init__(self) -> None:
        self.residuals: dict[str, Array] = {}
        self.replicated: dict[str, Array] = {}

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        pass
