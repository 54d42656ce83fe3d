"""Data-parallel gradient descent written from the gradient up.

`train(Config(...))` runs what `ddpgd train` runs; `exchange(comm, size)` sums gradients in your own mpi4py loop.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpgd.api import Config, Exchange, Tail, exchange, train

__all__ = ["Config", "Exchange", "Tail", "exchange", "train"]


def __getattr__(name: str) -> Any:
    """Imports the library on first use: the command line listens for signals before anything large is imported."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ddpgd import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
