"""Data-parallel gradient descent written from the gradient up: the same bits on any number of ranks.

`train(Config(...))` runs what `ddpgd train` runs and returns its `Summary`; `evaluate`, `predict`, `read_history` and
`load_params` take its run folder. `exchange(comm, size)` sums gradients in a training loop of your own with mpi4py.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpgd.api import (
        Config,
        DdpgdError,
        Evaluation,
        Exchange,
        InputError,
        Interrupted,
        NonFiniteError,
        StepStats,
        Summary,
        evaluate,
        exchange,
        load_params,
        predict,
        read_history,
        train,
    )

__all__ = [
    "Config",
    "DdpgdError",
    "Evaluation",
    "Exchange",
    "InputError",
    "Interrupted",
    "NonFiniteError",
    "StepStats",
    "Summary",
    "__version__",
    "evaluate",
    "exchange",
    "load_params",
    "predict",
    "read_history",
    "train",
]

__version__: str


def __getattr__(name: str) -> Any:
    """Imports the library on first use: the command line listens for signals before anything large is imported."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        return version("ddpgd")
    from ddpgd import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
