"""The data cursor: an epoch's order, learning rates and momenta where the backend computes, and the position in them.

The next epoch's order is made in a thread while this one trains: on a device, sorting costs as much as hundreds of steps.
"""

import numpy as np

from ddpgd.data.batches import Batches
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import CURSOR_WORDS, RATE_WORDS, Cursor
from ddpgd.optim.schedules import Schedule


class DataCursor:
    """order int64 (num_samples,), rates float64 (steps_per_epoch, RATE_WORDS), and cursor int64 (CURSOR_WORDS,).

    Steps move the cursor on.
    """

    def __init__(self, ops: Ops, batches: Batches, schedule: Schedule) -> None:
        self.order = ops.empty((batches.num_samples,), np.int64)
        self.rates = ops.empty((batches.steps_per_epoch, RATE_WORDS), np.float64)
        self.cursor = ops.zeros((CURSOR_WORDS,), np.int64)
        self._ops = ops
        self._batches = batches
        self._schedule = schedule
        self._step = -1
        self._epoch = -1

    def move_to(self, step: int, record: int) -> None:
        """Stands at `step`, whose row of the history is `record`."""
        if step != self._step:
            self._move_to(step, record)

    def moved(self, count: int) -> None:
        """Steps have moved the cursor on; at the end of an epoch it has left the order."""
        self._step += count
        if self._step % self._batches.steps_per_epoch == 0:
            self._step = -1

    def _move_to(self, step: int, record: int) -> None:
        within = step % self._batches.steps_per_epoch
        if self._batches.epoch(step) != self._epoch:
            self._epoch = self._batches.epoch(step)
            steps = range(step - within, step - within + self._batches.steps_per_epoch)
            self._ops.upload(np.array([self._schedule(number) for number in steps]), self.rates)
            self._ops.upload(self._batches.order(self._epoch), self.order)
            self._batches.prepare(self._epoch + 1)
        cursor = np.zeros(CURSOR_WORDS, np.int64)
        cursor[Cursor.FIRST] = within * self._batches.global_batch
        cursor[Cursor.STEP] = within
        cursor[Cursor.RECORD] = record
        cursor[Cursor.EPOCH] = self._epoch
        self._ops.upload(cursor, self.cursor)
        self._step = step
