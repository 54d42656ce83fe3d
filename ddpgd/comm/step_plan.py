"""A rank's plan of a step's sum: what it adds by itself, and the buckets that travel after each other."""

from collections.abc import Callable
from typing import NamedTuple

from ddpgd.comm.codec import Array, WireLoss, measure
from ddpgd.comm.forms import Part
from ddpgd.comm.requests import Requests
from ddpgd.comm.rows import Group, Rows
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import Tail


class StepPlan(NamedTuple):
    """All that depends on the number of micro-batches of a step alone.

    Attributes:
        groups: This rank's micro-batches.
        first: The row of its first piece.
        extra: Further pieces, to be added into the first.
        tail_row: The row whose tail takes its requests.
        parts: What travels, in the order in which gradients are ready; empty: the sum is not made of messages.
        pieces: The gradients that this rank has when its groups are folded.
    """

    groups: list[Group]
    first: Array
    extra: list[Array]
    tail_row: Rows
    parts: list[Part]
    pieces: list[Array]

    def ask(self, stop: bool, requests: Requests | None) -> None:
        """Puts this rank's requests to all ranks into its tail, which is there already."""
        if not self.groups:
            self.tail_row.whole.fill(0)
        if stop:
            self.tail_row.tail[Tail.STOP] = 1
        if requests is not None:
            requests.add_to(self.tail_row.tail)

    def fold_whole(self, ops: Ops) -> None:
        """Adds all pieces into the first, where they travel as one."""
        for other in self.extra:
            ops.add(self.first, other, self.first)

    def send(self, ops: Ops, measure_error: bool) -> WireLoss | None:
        """Makes the sum of all parts; returns the loss of encoding, if it is to be measured and there is one."""
        for part in self.parts:
            part.messages.reduce_scatter()
        sent = [coded for part in self.parts for coded in part.messages.sent] if measure_error else []
        loss = measure(sent, ops.to_host)
        for part in self.parts:
            part.messages.all_gather()
        return loss

    def send_beside(self, ops: Ops, backward: Callable[[Group, slice], None], requests: Requests | None) -> None:
        """Makes the sum part by part, each beside the computing of those that follow; see `Exchange.combine_beside`."""
        for number, (span, messages) in enumerate(self.parts):
            for group in self.groups[-1:]:
                backward(group, span)
                group.fold(ops, span)
            if number == 0:
                self.ask(False, requests)
            with ops.aside():
                messages.reduce_scatter()
                messages.all_gather()
        ops.join()
