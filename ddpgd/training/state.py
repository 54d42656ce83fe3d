"""The state of training: all that steps change, in one object, which synced and local steps share and checkpoints gather."""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.bulk import Places
from ddpgd.comm.grid import Shape
from ddpgd.comm.sharding import Shares
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import CONTROL_WORDS, Control
from ddpgd.training.counters import Counters


class Held(NamedTuple):
    """The places, in vectors (size,) of the whole network, of what each rank of a grid holds of params and optimizer."""

    params: list[Places]
    optimizer: list[Places]
    size: int
    shape: Shape

    def of_replica(self, number: int) -> list[Places]:
        """Returns the places of params on the ranks that are so far along the data axis; nothing, for the others."""
        return [own if self.shape.place(rank).data == number else () for rank, own in enumerate(self.params)]


@dataclass
class TrainState:
    """All that training changes; arrays are where the backend computes.

    Attributes:
        params: Float32 (n,), the flat vector of this rank's tensors, updated in place.
        weights: What `Ops.round_weights` made of params: the inputs of products, updated with params.
        control: Float64 (CONTROL_WORDS,), see `Control`: the last decision, the update's number, the loss scale.
        counters: The state of the run in numbers, on the host.
        optimizer: The optimizer's vectors by name, float32: this rank's part of (n,).
        replicated: Vectors by their names in checkpoints, params aside, that are equal on all ranks.
        per_rank: The same: vectors of which each rank, or the ranks that together hold the params, have their own.
        divided: The same: vectors of which each rank has the part that `held.optimizer` names.
        shares: The part of params that this rank updates.
        held: What each rank holds.
    """

    params: Array
    weights: Array
    control: Array
    counters: Counters
    shares: Shares
    held: Held
    optimizer: dict[str, Array] = field(default_factory=dict)
    replicated: dict[str, Array] = field(default_factory=dict)
    per_rank: dict[str, Array] = field(default_factory=dict)
    divided: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        ops: Ops,
        params: NDArray[np.float32],
        counters: Counters,
        shares: Shares,
        held: Held,
        optimizer: dict[str, Array],
        initial_loss_scale: float,
    ) -> Self:
        """The state at `counters`: with `params` (n,) from the host, and the loss scale that counters hold, if any."""
        vector = ops.from_host(params)
        control = np.zeros(CONTROL_WORDS)
        control[Control.UPDATE] = counters.updates
        control[Control.LOSS_SCALE] = counters.loss_scale or initial_loss_scale
        control[Control.GOOD_STEPS] = counters.good_steps
        control[Control.LR_FACTOR] = counters.lr_factor
        return cls(vector, ops.round_weights(vector), ops.from_host(control), counters, shares, held, optimizer)

    def read_loss_scale(self, ops: Ops) -> None:
        """Notes the loss scale, and the number of steps that it has held, in `counters`."""
        control = ops.to_host(self.control)
        self.counters.loss_scale = float(control[Control.LOSS_SCALE])
        self.counters.good_steps = int(control[Control.GOOD_STEPS])

    def clear_halt(self, ops: Ops) -> None:
        """Lets steps go on after a gradient that was not finite."""
        self._change(ops, Control.HALTED, -1)

    def count_missed_updates(self, ops: Ops, count: int) -> None:
        """Counts updates that this rank had no samples for: the number of an update is the same on all ranks."""
        self._change(ops, Control.UPDATE, count)

    def lower_lr(self, ops: Ops) -> None:
        """Gives the steps to come the factor on learning rates that `counters` hold."""
        control = np.array(ops.to_host(self.control))
        control[Control.LR_FACTOR] = self.counters.lr_factor
        ops.upload(control, self.control)

    def _change(self, ops: Ops, word: Control, by: int) -> None:
        control = np.array(ops.to_host(self.control))
        control[word] += by
        ops.upload(control, self.control)
