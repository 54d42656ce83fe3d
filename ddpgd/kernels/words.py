"""The words of a step: what its decision reads and writes, in arrays where the backend computes.

The host reads them when it wants to know; no step waits for it.
"""

from enum import IntEnum
from typing import NamedTuple

BLOCK = 1024
"""Elements in a block: the unit of reductions over a vector, and of the segments that ranks own."""


class Tail(IntEnum):
    """Positions of the words. All are sums: over the samples of a micro-batch first, then over micro-batches and ranks."""

    LOSS_SUM = 0
    SAMPLES = 1
    CORRECT = 2
    NON_FINITE = 3
    STOP = 4
    SQUARED_NORM_SUM = 5
    STEP_S = 6
    """Seconds that a step took on rank 0, the only one that tells: all ranks plan by it. 0: not told."""


TAIL_WORDS = 8
"""Length of a tail in float32 words; the last one is spare."""


class Control(IntEnum):
    """Float64 words that `Ops.decide` leaves to the update, and those that it carries from step to step."""

    LR = 0
    SCALE = 1
    """What turns the gradient of the sum into the one that is applied: mean, loss scale and clipping in one factor."""
    APPLY = 2
    UPDATE = 3
    """Number of the last update that was applied, from 1."""
    LOSS_SCALE = 4
    GOOD_STEPS = 5
    """Applied steps since the loss scale last changed, or was found at its largest."""
    HALTED = 6
    """1: a gradient was not finite, and nothing is applied any more."""
    MOMENTUM = 7
    """The rule's first hyper-parameter in this update; 0: it is the rule's own."""
    CLIP_VALUE = 8
    """The largest magnitude of an element of the mean gradient; 0: any."""
    LR_FACTOR = 9
    """Factor on the schedule's learning rates, which evaluations lower."""


CONTROL_WORDS = 10


class Rate(IntEnum):
    """Float64 words of a step's row in the schedule of an epoch."""

    LR = 0
    MOMENTUM = 1
    """As `Control.MOMENTUM`."""


RATE_WORDS = 2


class Cursor(IntEnum):
    """Int64 words that say where the run stands; `Ops.decide` moves the first three on."""

    FIRST = 0
    """Where the step's samples begin in the epoch's order."""
    STEP = 1
    """The step within its epoch: the row of its rates."""
    RECORD = 2
    """Steps decided so far: its remainder is the row of the history that comes next."""
    EPOCH = 3
    """The epoch, from 0. The host writes it: steps that run without the host are of one epoch."""


CURSOR_WORDS = 4


class History(IntEnum):
    """Float64 words of a step's row in the history, after the words of its tail."""

    LR = TAIL_WORDS
    GRAD_NORM = TAIL_WORDS + 1
    APPLIED = TAIL_WORDS + 2
    OVERFLOWED = TAIL_WORDS + 3
    """1: the loss scale was too large, and is now halved."""
    LOSS_SCALE = TAIL_WORDS + 4
    """That of the step's gradient."""


HISTORY_WORDS = TAIL_WORDS + 8


class Policy(NamedTuple):
    """The part of the configuration that `Ops.decide` reads.

    `clip_norm` and `clip_value` 0 clip nothing. `growth_interval` 0 leaves the loss scale as it is; else it is doubled
    after so many good steps, up to `largest_loss_scale`, and halved where it made a gradient overflow.
    """

    global_batch: int
    clip_norm: float
    growth_interval: int
    largest_loss_scale: float
    clip_value: float = 0.0
