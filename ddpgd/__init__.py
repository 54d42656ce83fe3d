"""Data-parallel gradient descent written from the gradient up: the library's face.

`train(Config(...))` runs what `ddpgd train` runs; `exchange(comm, size)` sums gradients in your own mpi4py loop.
"""

from ddpgd.api import Config, Exchange, Tail, exchange, train

__all__ = ["Config", "Exchange", "Tail", "exchange", "train"]
