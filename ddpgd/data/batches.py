"""Batches: the samples of each step and each micro-batch, independent of the world size."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.data.ahead import Ahead


@dataclass(frozen=True)
class Samples:
    """Images uint8 (n, K) and labels uint8 (n,), in the backend's memory."""

    images: NDArray[Any]
    labels: NDArray[Any]


class Batches:
    """Cut epochs into steps of `global_batch` samples and those into micro-batches; the last of each may be shorter.

    `order(epoch)` returns int64 (num_samples,), the order of that epoch's samples; `prepare` makes it in a thread, but
    none from `num_epochs` on.
    """

    def __init__(
        self,
        num_samples: int,
        global_batch: int,
        micro_batch: int,
        order: Callable[[int], NDArray[np.int64]],
        num_epochs: int,
    ) -> None:
        self.num_samples = num_samples
        self.num_epochs = num_epochs
        self.steps_per_epoch = -(-num_samples // global_batch)
        self.micro_batch = micro_batch
        self.global_batch = global_batch
        self._order_of = order
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._ahead: dict[int, Ahead[NDArray[np.int64]]] = {}  # one at most

    def epoch(self, step: int) -> int:
        """Return the epoch (from 0) that `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def samples(self, step: int) -> int:
        """Return the number of samples in `step`."""
        first = step % self.steps_per_epoch * self.global_batch
        return min(self.global_batch, self.num_samples - first)

    def num_micro_batches(self, step: int) -> int:
        """Return the number of micro-batches in `step`, over all ranks."""
        return -(-self.samples(step) // self.micro_batch)

    def num_full_steps(self, step: int) -> int:
        """Return the number of steps with a whole global batch from `step` to the end of its epoch."""
        return self.num_samples // self.global_batch - step % self.steps_per_epoch

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return an epoch's order of the samples, int64 (num_samples,); the last two are kept.

        Raises:
            Exception: as `order_of`, in a thread or here.
        """
        if epoch not in self._orders:
            ahead = self._ahead.pop(epoch, None)
            order = self._order_of(epoch) if ahead is None else ahead.result()
            before = {kept: order for kept, order in self._orders.items() if kept == epoch - 1}
            self._orders = before | {epoch: order}
        return self._orders[epoch]

    def prepare(self, epoch: int) -> None:
        """Start to make an epoch's order in a thread, for `order` to return; no more than one is made ahead."""
        if epoch < self.num_epochs and epoch not in self._orders and epoch not in self._ahead:
            self.close()
            self._ahead[epoch] = Ahead(partial(self._order_of, epoch), name=f"order of epoch {epoch + 1}")

    def close(self) -> None:
        """Wait for the thread of `prepare`, if there is one, and drop what it makes."""
        while self._ahead:
            self._ahead.popitem()[1].join()

    def indices(self, step: int, micro_batch: int) -> NDArray[np.int64]:
        """Return the samples, int64 (B,), of a micro-batch of `step`."""
        first = step % self.steps_per_epoch * self.global_batch
        start = first + micro_batch * self.micro_batch
        end = min(start + self.micro_batch, first + self.samples(step))
        return self.order(self.epoch(step))[start:end]
