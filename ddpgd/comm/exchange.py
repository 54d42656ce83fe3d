"""The exchange: the sum of a step's micro-batch gradients, equal on every rank, bit for bit.

Ordered form: each rank folds its micro-batches into the maximal subtrees that it covers (pieces); all_to_all hands every
rank all pieces of the segment that it owns; it adds them in tree order; all_gather gives every rank all segments, or norms.
Fast form: each rank folds all its pieces into one, and the transport's own all_reduce, or a compressor, adds those.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ddpgd.comm import traffic, tree
from ddpgd.comm.codec import Array, Codec, Float32, WireLoss
from ddpgd.comm.compressor import Compressor, NoExchange
from ddpgd.comm.forms import Flat, Form, TwoLevel
from ddpgd.comm.levels import Levels
from ddpgd.comm.message_plan import Residuals, Sending
from ddpgd.comm.replica import Replica
from ddpgd.comm.requests import Requests
from ddpgd.comm.rows import Group, RowPool
from ddpgd.comm.step_plan import StepPlan
from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import Purpose
from ddpgd.kernels.words import BLOCK

GradientFn = Callable[[int, Array, Array], None]
"""gradient(m, grads, tail) puts the sums over micro-batch m's samples into grads, which still holds older values, and into
tail, which is handed in as zeros."""


class Exchange:
    """Sums flat float32 gradients of any length, and their tails, over the ranks of a transport.

    Args:
        transport: The ranks; the exchange owns a duplicate of it.
        ops: The backend where the gradients are.
        size: Elements of the gradient; 0: tails alone.
        codec: The form on the wire; default float32.
        reduce: "ordered" or "fast".
        join: At most so many micro-batches, a power of two, are computed side by side.
        error_feedback: Add what a codec lost to what it encodes next.
        seed: For codecs that round stochastically.
        compressor: Sums in the codec's stead.
        levels: The groups of a sum inside nodes and then between them; the exchange owns duplicates. None: it is flat.
        sharded: Where ranks sum segments, and lose nothing, each keeps the sum of its own; see `block_norms`.
        owned: The segments then, whole blocks; empty: as even as possible.
        replica: The ranks among which the params are divided; None: every rank has all.
        cuts: Starts of buckets, whole blocks, from the last to the first: each travels as soon as it is computed; see
            `combine_beside`. Not for lossy codecs, `levels`, `sharded` or `replica`: buckets have owners of their own.
    """

    def __init__(
        self,
        transport: Transport,
        ops: Ops,
        size: int,
        codec: Codec | None = None,
        reduce: str = "ordered",
        join: int = 1,
        error_feedback: bool = False,
        seed: int = 0,
        compressor: Compressor | None = None,
        levels: Levels | None = None,
        sharded: bool = False,
        replica: Replica | None = None,
        cuts: Sequence[int] = (),
        owned: Sequence[slice] = (),
    ) -> None:
        if reduce not in ("ordered", "fast"):
            raise ValueError(f"reduce is {reduce!r}; it must be 'ordered' or 'fast'")
        if levels and (compressor or reduce == "fast"):
            raise ValueError("only ordered sums by a codec have two levels")
        self.transport = transport.duplicate()
        self.codec = codec or Float32()
        if cuts and (levels or sharded or replica or not self.codec.exact):
            raise ValueError("only flat sums that all ranks get, of a codec that loses nothing, travel in buckets")
        self.reduce = reduce
        self.size = size
        self.round = 0
        """Number of sums so far, of which the random keys are made; set by whoever resumes from a checkpoint."""
        self.wire_loss: WireLoss | None = None
        self.compressor = compressor
        keeps = error_feedback and not self.codec.exact
        self._residuals = Residuals(*(ops.zeros((size,), np.float32) for _ in range(2))) if keeps else None
        self._part_norms = ops.zeros((size // BLOCK,), np.float32) if sharded and not self._folds_whole else None
        self._replica = replica
        self.block_norms = replica.block_norms if replica else self._part_norms
        """Squared norms of the sum's blocks, float32 (whole size / 1024,), where `combine` leaves a rank a part of it alone."""
        self._seed = seed
        self._keys = (ops.zeros((3,), np.uint64), ops.zeros((3,), np.uint64))
        self._ops = ops
        sending = Sending(ops, self.codec, size, self._keys, self._residuals, self._part_norms, owned)
        self.form: Form = TwoLevel(levels.duplicate(), sending) if levels else Flat(self.transport, sending, cuts)
        self._rows = RowPool(ops, size, join)
        self._plans: dict[int, StepPlan] = {}
        self._first = self._rows.slot(0)
        self.result = self._first.grad, self._first.tail
        """The sum that `combine` makes: grads (size,) and tail (TAIL_WORDS,), always the same arrays."""

    def sum(self, num_micro_batches: int, gradient: GradientFn, stop: bool = False) -> tuple[Array, Array]:
        """The canonical sum of gradient(m) over all m < num_micro_batches.

        Each rank calls `gradient` for its own micro-batches. `stop` asks all ranks to stop: it is added to Tail.STOP.

        Returns:
            grads float32 (size,) and tail float32 (TAIL_WORDS,): the exchange's own arrays, overwritten by its next use.
        """
        for group in self.groups(num_micro_batches):
            for micro_batch, grads, tail in zip(group.micro_batches, group.rows.grads, group.rows.tails, strict=True):
                tail.fill(0)
                gradient(micro_batch, grads, tail)
            self.fold(group)
        return self.combine(num_micro_batches, stop)

    def groups(self, num_micro_batches: int) -> list[Group]:
        """This rank's micro-batches, in order: fill each group's rows, grads and tails, then `fold` it."""
        return self._plan(num_micro_batches).groups

    def pieces(self, num_micro_batches: int) -> list[Array]:
        """This rank's gradients, once all groups are folded: what it adds to the sum."""
        return self._plan(num_micro_batches).pieces

    def fold(self, group: Group) -> None:
        """Adds a group whose rows are filled into this rank's pieces, in canonical order. No communication."""
        group.fold(self._ops)

    def combine(
        self,
        num_micro_batches: int,
        stop: bool = False,
        measure_error: bool = False,
        requests: Requests | None = None,
    ) -> tuple[Array, Array]:
        """The communication that turns every rank's pieces into the sum; returns `result`.

        Args:
            num_micro_batches: Micro-batches of the step, over all ranks.
            stop: This rank asks all ranks to stop.
            measure_error: Measure what encoding lost of what this rank sends, in `wire_loss`.
            requests: What this rank adds to its tail, `stop` in place of the argument: for calls that are captured.
        """
        plan = self._plan(num_micro_batches)
        plan.ask(stop, requests)
        plan.fold_whole(self._ops)
        if self.compressor:
            self.compressor.combine(self.round, *self.result)
        elif self._sums_whole:
            self.transport.all_reduce(self._first.row)
        else:
            self._make_keys()
            self.wire_loss = plan.send(self._ops, measure_error) or self.wire_loss
        if self._replica:
            self._replica.combine(self._first.grad, self._part_norms, self._first.tail)
        self.round += 1
        return self.result

    def combine_beside(
        self, num_micro_batches: int, backward: Callable[[Group, slice], None], requests: Requests | None = None
    ) -> tuple[Array, Array]:
        """As `combine`, bucket by bucket, where no host is needed; each travels while the next is computed.

        Args:
            num_micro_batches: Micro-batches of the step. All groups but the last are folded.
            backward: backward(group, bucket) fills the rows of the last group in one of the `buckets`; with the first, their
                tails.
            requests: As for `combine`.
        """
        self._plan(num_micro_batches).send_beside(self._ops, backward, requests)
        self.round += 1
        return self.result

    def buckets(self, num_micro_batches: int) -> list[slice]:
        """The parts of rows that travel by themselves, in the order in which they do."""
        return [part.span for part in self._plan(num_micro_batches).parts]

    def close(self) -> None:
        """Frees the transport's communicators, those of what it was duplicated from included. Every rank calls it."""
        self.transport.close()

    @property
    def needs_host(self) -> bool:
        """True if the host must take part in `combine`."""
        if self._replica and self._replica.needs_host:
            return True
        return self.compressor.needs_host if self.compressor else self.form.needs_host or self.codec.random

    @property
    def calls_ops_alone(self) -> bool:
        """True if `fold` and `combine` call ops and nothing else: no transport, and no `fill` of arrays."""
        return self.transport.world_size == 1 and self.compressor is None and self._replica is None

    @property
    def has_peers(self) -> bool:
        """True if other ranks add to the sums."""
        is_alone = self.transport.world_size == 1 or isinstance(self.compressor, NoExchange)
        return self._replica is not None or not is_alone

    @property
    def tells(self) -> bool:
        """True on one of all ranks: the first of those with the loss."""
        return self.transport.rank == 0 and (self._replica is None or self._replica.has_loss)

    @property
    def wire(self) -> str:
        """The name of the form on the wire, as `--wire` has it."""
        return self.compressor.name if self.compressor else self.codec.name

    @property
    def bytes_sent(self) -> int:
        """By this rank, in all calls of `combine` so far; the replays of a captured call are not counted here."""
        senders = self.transport, self.form, self.compressor, self._replica
        return sum(sender.bytes_sent for sender in senders if sender)

    @property
    def residuals(self) -> dict[str, Array]:
        """Residuals of this rank by name, float32 (size,): a resume keeps their sums over ranks."""
        if self.compressor:
            return self.compressor.residuals
        return {} if self._residuals is None else {"sent": self._residuals.sent, "owned": self._residuals.owned}

    def micro_batches(self, num_micro_batches: int) -> range:
        """The micro-batches that this rank computes."""
        return tree.ranges(num_micro_batches, self.transport.world_size)[self.transport.rank]

    def num_pieces(self, num_micro_batches: int) -> int:
        """The largest number of pieces that any rank sends."""
        return max(traffic.num_pieces(num_micro_batches, self.transport.world_size, self._folds_whole))

    @property
    def ring_bytes(self) -> int:
        """Bytes that a rank would send in a sum of float32 by a ring: 2 (W - 1) / W of the vector."""
        return 2 * (self.transport.world_size - 1) * 4 * self.size // self.transport.world_size

    def residual_norm(self) -> float | None:
        """The L2 norm of what this rank has kept back of gradients; None where nothing is."""
        kept = [vector for name, vector in self.residuals.items() if name != "velocity"]
        return math.hypot(*(np.linalg.norm(self._ops.to_host(vector)) for vector in kept)) if kept else None

    @property
    def _sums_whole(self) -> bool:
        """True if the sum is made of one row of each rank, by a compressor or by the transport."""
        return self.compressor is not None or self.reduce == "fast"

    @property
    def _folds_whole(self) -> bool:
        """True if a rank adds all its micro-batches before anything travels: no order is promised across ranks."""
        return self._sums_whole or not self.codec.exact

    def _make_keys(self) -> None:
        if self.codec.random:
            for stage, key in enumerate(self._keys):
                index = (self.round << 17) | (stage << 16) | self.transport.rank
                self._ops.upload(np.array([self._seed, Purpose.ENCODE, index], np.uint64), key)

    def _plan(self, num_micro_batches: int) -> StepPlan:
        plan = self._plans.get(num_micro_batches)
        if plan is None:
            if num_micro_batches < 1:
                raise ValueError(f"a sum of {num_micro_batches} micro-batches: there must be at least one")
            plan = self._plans[num_micro_batches] = self._make_plan(num_micro_batches)
        return plan

    def _make_plan(self, num_micro_batches: int) -> StepPlan:
        groups, piece_slots = self._rows.groups(num_micro_batches, self.micro_batches(num_micro_batches))
        tail_row = self._rows.slot(0 if groups or self._sums_whole else 1)
        extra = [self._rows.slot(slot).row for slot in piece_slots[1:]] if self._folds_whole else []
        sent_slots = piece_slots[:1] if self._folds_whole else piece_slots
        rows = self._rows.all_rows()
        parts = [] if self._sums_whole else self.form.plan(num_micro_batches, rows, sent_slots)
        pieces = [self._rows.slot(slot).grad for slot in piece_slots]
        return StepPlan(groups, self._first.row, extra, tail_row, parts, pieces)
