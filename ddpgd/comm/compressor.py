"""The contract of compressors: what sums the whole gradients of ranks in far fewer bytes than those have."""

from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class Compressor(Protocol):
    """Sums approximately, equal on all ranks bit for bit. `name` is what `--wire` calls it.

    `residuals`: float32 (size,) vectors of this rank's own, by name, whose sums over ranks must survive: what was not sent
    yet. `shared`: vectors by name that are equal on all ranks, and must survive as well.
    """

    name: str
    needs_host: bool
    residuals: dict[str, Array]
    shared: dict[str, Array]

    @property
    def bytes_sent(self) -> int:
        """By this rank, so far."""

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        """grads (size,), about, and tail (TAIL_WORDS,), exactly, become the sums of those that the ranks hand in.

        `round`: how many sums there were.
        """


class NoExchange:
    """`Compressor` that hands nothing to anybody: for steps after which ranks differ until they combine."""

    name = "none"
    needs_host = False
    bytes_sent = 0

    def __init__(self) -> None:
        self.residuals: dict[str, Array] = {}
        self.shared: dict[str, Array] = {}

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        pass
