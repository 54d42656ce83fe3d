"""Data-parallel gradient descent written from the gradient up: the same bits on any number of ranks.

`train(Config(...))` runs what `ddpgd train` runs and returns its `Summary`; `evaluate`, `predict`, `read_history`,
`read_summary` and `load_params` take its run folder. `exchange(comm, size)` sums gradients in a training loop of your
own with mpi4py. The names are those of `ddpgd.api`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpgd.api import *  # noqa: F403 - all of its __all__

    __version__: str


def __getattr__(name: str) -> Any:
    """Imports the library on first use: the command line listens for signals before anything large is imported."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ddpgd")
    names = import_module("ddpgd.api").__all__
    if name == "__all__":
        return [*names, "__version__"]
    if name not in names:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ddpgd.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
