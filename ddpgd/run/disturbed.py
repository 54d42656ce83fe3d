"""Collectives, messages and gradients of a rank, disturbed by faults on purpose."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import numpy as np

from ddpgd.comm.counted import Counted, Work
from ddpgd.comm.transport import Array, Transport
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout
from ddpgd.run.inject import Faults, flip_bit
from ddpgd.run.stderr import say

_LEAST_BYTES = 256
"""Shorter messages are no gradients."""


class DisturbedGradients:
    """Changes a rank's gradients, as its faults say. `layout`: of its params."""

    def __init__(self, ops: Ops, faults: Faults, layout: Layout) -> None:
        self._ops = ops
        self._faults = faults
        self._tensors = layout.tensors

    def begins(self, step: int, params: Array) -> None:
        pass

    def computed(self, pieces: Sequence[Array]) -> None:
        change, self._faults.changes_gradient = self._faults.changes_gradient, None
        if change is None:
            return
        if not pieces:
            say("--inject: this rank has no micro-batch, and so no gradient to change")
            return
        host = np.array(self._ops.to_host(pieces[0]))
        place = change(host)
        self._ops.upload(host, pieces[0])
        names = [tensor.name for tensor in self._tensors if place is not None and tensor.start <= place]
        say(f"--inject: the change is in {names[-1]}" if names else "--inject: the gradient is 0, and stays so")

    def summed(self, grads: Array) -> None:
        pass


class Disturbed(Counted):
    """A transport of a rank whose faults may concern its collectives."""

    faults: Faults

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        work = super().all_to_all_init(sends, receives)

        def run() -> None:
            work()
            self._damage(receives)

        return run

    def _damage(self, receives: Sequence[Sequence[Array]]) -> None:
        """Flips a bit of what has been received, if a fault says so."""
        arrays = [array for arrays in receives for array in arrays if array.nbytes >= _LEAST_BYTES]
        if self.faults.flips_message and arrays:
            self.faults.flips_message = False
            flip_bit(arrays[0].reshape(-1).view(np.uint8).view(np.uint32))
            say(f"--inject: a message of {arrays[0].nbytes} bytes has a bit flipped")

    @classmethod
    def of(cls, faults: Faults) -> "Callable[..., Disturbed]":
        """Returns what makes such a transport as `Counted` is made."""

        def make(transport: Transport, here: memoryview) -> Disturbed:
            made = cls(transport, here)
            made.faults = faults
            return made

        return make

    def _like(self, transport: Transport, members: Sequence[int]) -> Self:
        made = super()._like(transport, members)
        made.faults = self.faults
        return made

    def _counted(self, collective: str, work: Work) -> Work:
        counted = super()._counted(collective, work)
        waits = super()._counted(collective, _wait_for_ever)

        def disturbed(*arguments: Any) -> Any:
            faults = self.faults
            if self.world_size == 1:
                return counted(*arguments)
            if faults.is_cut:
                waits(*arguments)
            if faults.skips:
                faults.skips -= 1
                return None
            result = counted(*arguments)
            if work == self._transport.all_to_all:
                self._damage(arguments[1])
            return result

        return cast(Work, disturbed)


def _wait_for_ever(*_: Any) -> None:
    threading.Event().wait()
