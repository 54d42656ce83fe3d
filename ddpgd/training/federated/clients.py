"""Local training of clients: each from the global params, with an optimizer of its own that begins anew."""

import math
from typing import NamedTuple

import numpy as np

from ddpgd.comm import whereabouts
from ddpgd.comm.compressor import NoExchange
from ddpgd.comm.whereabouts import COMPUTED
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import CONTROL_WORDS, Control, Tail
from ddpgd.optim import rules
from ddpgd.training.federated.rounds import ClientBatches, Rounds
from ddpgd.training.state import TrainState
from ddpgd.training.step import Step


class Trained(NamedTuple):
    """The result of a client.

    Attributes:
        params: Its params, (n,), until another client is trained there.
        loss_sum: The sum of its losses.
        not_finite: The place of a gradient that is not finite; empty: all are.
    """

    params: Array
    loss_sum: float
    not_finite: str


class Proximal(NoExchange):
    """`NoExchange` that adds the gradient of MU / 2 times the squared distance from the global params.

    Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated optimization in heterogeneous networks", 2020.
    """

    needs_host = True

    def __init__(self, ops: Ops, params: Array, anchor: Array, strength: float) -> None:
        """`params`, `anchor`: float32 (n,), those of the client and the global ones. `strength`: MU."""
        super().__init__()
        self._ops = ops
        self._params = params
        self._anchor = anchor
        self._strength = strength

    def combine(self, round: int, grads: Array, tail: Array) -> None:  # noqa: ARG002
        factor = self._strength * float(self._ops.to_host(tail)[Tail.SAMPLES])
        self._ops.wire.accumulate(self._params, factor, None, 0.0, grads)
        self._ops.wire.accumulate(self._anchor, -factor, None, 0.0, grads)


class Clients:
    """Trains clients one after the other in `state`."""

    def __init__(self, ops: Ops, step: Step, batches: ClientBatches, rounds: Rounds, anchor: Array) -> None:
        """`step`: a step of a client, through an exchange that sends nothing. `anchor`: for the global params, (n,)."""
        self.state: TrainState = step.state
        self.anchor = anchor
        self._ops = ops
        self.step = step
        self._batches = batches
        self._rounds = rounds
        self._stay = rules.make("sgd", ops, anchor.size, 0.0)
        self._zeros = ops.zeros(anchor.shape, np.float32)
        self._here = whereabouts.here()
        self.ends = False
        """True where the result of `train` is not wanted any more."""
        self._start = np.zeros(CONTROL_WORDS)
        self._start[[Control.APPLY, Control.LOSS_SCALE, Control.LR_FACTOR]] = 1

    def begin_round(self) -> None:
        """Keeps the global params, which are those of `state`, for all lanes."""
        self._copy(self.state.params, self.anchor)
        self._ops.synchronize()

    def restore(self) -> None:
        """Puts the global params back, and the optimizer to its beginning."""
        state, ops = self.state, self._ops
        self._copy(self.anchor, state.params)
        ops.upload(self._start, state.control)
        self._stay.update(state.params, self._zeros, state.control, state.weights)
        for vector in state.optimizer.values():
            vector.fill(0)

    def train(self, number: int, position: int) -> Trained:
        """Trains the client at a position of round `number`."""
        self.restore()
        first = self._batches.first_epoch(number, position)
        losses: list[float] = []
        for epoch in range(first, first + self._rounds.tasks(number)[position].num_passes):
            at = epoch * self._batches.steps_per_epoch
            end = at + self._batches.num_steps(epoch)
            while at < end and not self.ends:
                result = self.step.run(at, end - at, False, False)
                self._here[COMPUTED] += 1
                if result.halted:
                    return Trained(self.state.params, 0.0, self._name(number, position, at + result.num_steps - 1))
                losses += result.loss_sums
                at += result.num_steps
        self._ops.synchronize()
        return Trained(self.state.params, math.fsum(losses), "")

    def change(self, params: Array, out: Array) -> None:
        """Puts a client's change, global minus its own `params`, with the sign of a gradient, into `out` (n,)."""
        self._copy(self.anchor, out)
        self._ops.wire.accumulate(params, -1.0, None, 0.0, out)

    def _name(self, number: int, position: int, step: int) -> str:
        client = self._rounds.tasks(number)[position].client
        return ", ".join(filter(None, (f"client {client}", self.step.non_finite(step))))

    def _copy(self, source: Array, target: Array) -> None:
        target.fill(0)
        self._ops.wire.accumulate(source, 1.0, None, 0.0, target)
