"""Pipeline parallelism: each rank has a stage of the layers, through which the micro-batches of a step follow each other.

A schedule is one number: how many micro-batches a stage may have computed forward and not yet backward. GPipe (Huang et al.,
2019) computes all of them forward first; one-forward-one-backward (Narayanan et al., "PipeDream", 2019) as many as there are
stages to come, so that fewer are held. Backward passes come in the order of micro-batches: no bit depends on the schedule.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from ddpgd.comm.rows import Group
from ddpgd.comm.transport import PointToPoint
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.model.layers import Mode
from ddpgd.model.network import Network
from ddpgd.training.passes import Feed, Weights

Columns = Callable[[int], slice]
"""Returns the columns that this rank has of arrays of so many."""
Wait = Callable[[], object]


class Pipeline:
    """`Passes` of a rank that has one stage.

    Attributes:
        most_held: The most micro-batches, or groups of them, of which activations have been held at once.
    """

    def __init__(self, ops: Ops, network: Network, transport: PointToPoint, schedule: str, columns: Columns) -> None:
        """`transport`: the stages, in order. `columns`: those that travel, where several ranks share a layer."""
        self.network = network
        self.needs_host = transport.needs_host
        self.wait_s = 0.0
        self.most_held = 0
        self._ops = ops
        self._transport = transport
        self._to_come = transport.world_size - transport.rank
        self._holds_all = schedule == "gpipe"
        self._columns = columns
        self._slots: dict[tuple[int, int], _Slot] = {}
        self._sent: dict[int, list[Wait]] = {}
        neighbours = transport.rank - 1, transport.rank + 1
        transport.connect([rank for rank in neighbours if 0 <= rank < transport.world_size])

    def gradients(
        self,
        feed: Feed,
        groups: Sequence[Group],
        at: Weights,
        layers: range | None = None,  # noqa: ARG002
    ) -> Iterator[Group]:
        depth = max(1, len(groups) if self._holds_all else min(self._to_come, len(groups)))
        slots = self._slots_of(feed, groups, depth)
        for slot in slots[:depth]:
            slot.expect_input()
        num_forward = 0
        for number, (group, slot) in enumerate(zip(groups, slots, strict=True)):
            while num_forward < min(number + depth, len(groups)):
                self._forward(feed, groups[num_forward], slots[num_forward], at, Mode.TRAINING)
                num_forward += 1
            self.most_held = max(self.most_held, num_forward - number)
            self._backward(feed, group, slot, at)
            if number + depth < len(groups):
                slots[number + depth].expect_input()
            yield group
        self._finish(slots)

    def losses(self, feed: Feed, groups: Sequence[Group], at: Weights) -> Iterator[Group]:
        slots = self._slots_of(feed, groups, 2)
        for slot in slots[:1]:
            slot.expect_input()
        for number, (group, slot) in enumerate(zip(groups, slots, strict=True)):
            for following in slots[number + 1 : number + 2]:
                following.expect_input()
            self._forward(feed, group, slot, at, Mode.EVALUATION)
            self._loss(feed, group, slot, at, Mode.EVALUATION)
            yield group
        self._finish(slots)

    def _forward(self, feed: Feed, group: Group, slot: "_Slot", at: Weights, mode: Mode) -> None:
        self._waiting(slot.sent)
        if slot.has_previous:
            self._waiting([slot.coming])
            slot.unpack_input()
        if slot.has_next and mode is Mode.TRAINING:
            slot.expect_gradient()
        feed.load(self.network, group.micro_batches, slot.number)
        self.network.forward(at.params, at.weights, slot.num_rows, feed.micro_batch, mode, slot.number)
        if slot.has_next:
            slot.send_output()

    def _backward(self, feed: Feed, group: Group, slot: "_Slot", at: Weights) -> None:
        if slot.has_next:
            self._waiting([slot.returning])
            slot.unpack_gradient()
        self._loss(feed, group, slot, at, Mode.TRAINING)
        self.network.stage.backward(at.weights, slot.num_rows, feed.micro_batch, group.rows.grads, slot.dx, slot.number)
        if slot.has_previous:
            slot.send_gradient()

    def _loss(self, feed: Feed, group: Group, slot: "_Slot", at: Weights, mode: Mode) -> None:
        if slot.has_next:
            group.rows.tails.fill(0)
        else:
            self.network.loss(slot.num_rows, feed.micro_batch, at.control, group.rows.tails, mode, slot.number)

    def _finish(self, slots: Sequence["_Slot"]) -> None:
        for slot in slots:
            self._waiting(slot.sent)

    def _waiting(self, waits: list[Wait]) -> None:
        """Calls each of `waits`, and forgets it. Only the host's waiting has a time."""
        started = time.perf_counter()
        while waits:
            waits.pop()()
        if self.needs_host:
            self.wait_s += time.perf_counter() - started

    def _slots_of(self, feed: Feed, groups: Sequence[Group], depth: int) -> list["_Slot"]:
        """The slot of each group: a slot is free for another group once its gradient has come and gone."""
        slots = []
        for number, group in enumerate(groups):
            key = number % depth, feed.rows(group.micro_batches)[1]
            if key not in self._slots:
                sent = self._sent.setdefault(number % depth, [])
                self._slots[key] = _Slot(self._ops, self.network, self._transport, self._columns, *key, sent)
            slots.append(self._slots[key])
        return slots


class _Slot:
    """Arrays of one pass under way, of `num_rows` rows, that come from neighbouring stages and go to them.

    Attributes:
        has_previous, has_next: True if there is a stage before, or after.
        dx: The gradient that goes to the stage before; None: there is none.
        coming, returning: What waits until the input, or the gradient by the output, is there.
        sent: What waits until all that was sent may change, of all slots with these buffers.
    """

    def __init__(
        self,
        ops: Ops,
        network: Network,
        transport: PointToPoint,
        columns: Columns,
        number: int,
        num_rows: int,
        sent: list[Wait],
    ) -> None:
        self.number = number
        self.num_rows = num_rows
        self.has_previous = transport.rank > 0
        self.has_next = transport.rank < transport.world_size - 1
        self.coming: Wait = _nothing
        self.returning: Wait = _nothing
        self.sent = sent
        self._transport = transport
        buffers = network.stage.buffers(num_rows, number)
        x, out, dout = buffers.outputs[0], buffers.outputs[-1], buffers.doutputs[-1]
        self.dx = ops.empty(x.shape, x.dtype) if self.has_previous else None
        self._x = _Packed(ops, x[:, columns(x.shape[1])])
        self._out = _Packed(ops, out[:, columns(out.shape[1])])
        self._dx = _Packed(ops, self.dx[:, columns(x.shape[1])]) if self.dx is not None else self._x
        # All slots share the buffer of dout, so what comes ahead needs a place of its own.
        self._dout = _Packed(ops, dout[:, columns(dout.shape[1])], apart=True)

    def expect_input(self) -> None:
        if self.has_previous:
            self.coming = self._transport.receive(self._x.packed, self._transport.rank - 1)

    def unpack_input(self) -> None:
        self._x.unpack()

    def send_output(self) -> None:
        self.sent.append(self._transport.send(self._out.pack(), self._transport.rank + 1))

    def expect_gradient(self) -> None:
        self.returning = self._transport.receive(self._dout.packed, self._transport.rank + 1)

    def unpack_gradient(self) -> None:
        self._dout.unpack()

    def send_gradient(self) -> None:
        self.sent.append(self._transport.send(self._dx.pack(), self._transport.rank - 1))


class _Packed:
    """Columns of an array, and a contiguous copy of them that travels; none, where they are contiguous and need none."""

    def __init__(self, ops: Ops, window: Array, apart: bool = False) -> None:
        is_packed = window.flags.c_contiguous and not apart
        self.packed = window if is_packed else ops.empty(window.shape, window.dtype)
        self._window = None if is_packed else window
        self._ops = ops

    def pack(self) -> Array:
        if self._window is not None:
            self._ops.copy(self._window, self.packed)
        return self.packed

    def unpack(self) -> None:
        if self._window is not None:
            self._ops.copy(self.packed, self._window)


def _nothing() -> None:
    pass
