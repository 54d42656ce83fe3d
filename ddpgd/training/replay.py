"""Replay of steps: their work captured once for each shape of step, and run with as few calls of the host as it allows."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Protocol

from ddpgd.comm import whereabouts
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.whereabouts import ACTIVITY, EXCHANGE, GRADIENTS, UPDATE
from ddpgd.kernels.ops import Ops

Work = Callable[[], None]


class StepShape(NamedTuple):
    """All on which the work of a step depends. `observe`: micro-batches report their squared norms."""

    num_samples: int
    num_micro_batches: int
    observe: bool


class Cost(NamedTuple):
    """The cost of one or more steps on this rank.

    Attributes:
        compute_s: Seconds of computing gradients; None where the host does not see them end.
        exchange_s: Seconds of the exchange, those of waiting for other ranks included; None where the host does not see it.
        wire_bytes: Bytes that this rank sent.
        between_bytes: Of them, those to other nodes, where they are counted apart.
    """

    compute_s: float | None
    exchange_s: float | None
    wire_bytes: int
    between_bytes: int


class Replay(Protocol):
    """The captured work of one shape of step."""

    def run(self, count: int, stop: bool) -> Cost:
        """Runs `count` steps. `stop`: this rank asks all ranks to stop."""


class HostReplay:
    """Steps whose exchange needs the host, or whose backend has no graphs: one at a time, each part timed."""

    def __init__(
        self,
        ops: Ops,
        exchange: Exchange,
        shape: StepShape,
        compute_gradients: Work,
        decide_and_update: Work,
        share_params: Work,
        captures_gradients: bool = True,
        captures_update: bool = True,
    ) -> None:
        """`captures_gradients`, `captures_update`: False where the host takes part in them."""
        self._synchronize = ops.synchronize
        self._exchange = exchange
        self._shape = shape
        self._compute_gradients = ops.capture(compute_gradients) if captures_gradients else compute_gradients
        self._decide_and_update = ops.capture(decide_and_update) if captures_update else decide_and_update
        self._share_params = share_params
        self._here = whereabouts.here()

    def run(self, count: int, stop: bool) -> Cost:
        assert count == 1
        self._here[ACTIVITY] = GRADIENTS
        exchange, form = self._exchange, self._exchange.form
        bytes_before, between_before, started = exchange.bytes_sent, form.bytes_between, time.perf_counter()
        self._compute_gradients()
        self._synchronize()
        computed = time.perf_counter()
        self._here[ACTIVITY] = EXCHANGE
        exchange.combine(self._shape.num_micro_batches, stop, measure_error=self._shape.observe)
        exchanged = time.perf_counter()
        self._here[ACTIVITY] = UPDATE
        self._decide_and_update()
        updated = time.perf_counter()
        self._share_params()
        exchange_s = exchanged - computed + time.perf_counter() - updated
        sent = exchange.bytes_sent - bytes_before, form.bytes_between - between_before
        return Cost(computed - started, exchange_s, *sent)


class DeviceReplay:
    """Whole steps, exchange included, of which the backend runs many without the host. `has_peers`: there are other ranks."""

    def __init__(
        self,
        ops: Ops,
        exchange: Exchange,
        sum_gradients: Work,
        decide_and_update: Work,
        share_params: Work,
        has_peers: bool,
    ) -> None:
        self._ops = ops
        self._exchange = exchange
        self._sum_gradients = sum_gradients
        self._decide_and_update = decide_and_update
        self._share_params = share_params
        self._has_peers = has_peers
        self._here = whereabouts.here()
        self._wire_bytes = self._between_bytes = 0

    def run(self, count: int, stop: bool) -> Cost:  # noqa: ARG002 - the sum has it
        self._here[ACTIVITY] = GRADIENTS
        self._steps(count)
        exchange_s = None if self._has_peers else 0.0
        return Cost(None, exchange_s, count * self._wire_bytes, count * self._between_bytes)

    @cached_property
    def _steps(self) -> Callable[[int], None]:
        return self._ops.capture_loop(self._step, self._exchange.calls_ops_alone)

    def _step(self) -> None:
        """A step to be captured. The exchange's round stays where it is: one capture stands for all rounds of its shape."""
        exchange = self._exchange
        bytes_before, between_before, round = exchange.bytes_sent, exchange.form.bytes_between, exchange.round
        self._sum_gradients()
        self._decide_and_update()
        self._share_params()
        self._wire_bytes, exchange.round = exchange.bytes_sent - bytes_before, round
        self._between_bytes = exchange.form.bytes_between - between_before
