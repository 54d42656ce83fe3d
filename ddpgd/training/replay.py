"""Replay of steps: their work captured once for each shape of step, and run with as few calls of the host as it allows."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Protocol

from ddpgd.comm.compressor import NoExchange
from ddpgd.comm.exchange import Exchange
from ddpgd.kernels.ops import Ops

Work = Callable[[], None]


class StepShape(NamedTuple):
    """All on which the work of a step depends. `observe`: micro-batches report their squared norms."""

    num_samples: int
    num_micro_batches: int
    observe: bool


class Replay(Protocol):
    """The captured work of one shape of step."""

    def run(self, count: int, stop: bool) -> tuple[float | None, float]:
        """Runs `count` steps. `stop`: this rank asks all ranks to stop.

        Returns:
            Seconds of computing gradients, None where the host does not see them end, and of the exchange.
        """


class HostReplay:
    """Steps whose exchange needs the host, or whose backend has no graphs: one at a time, each part timed."""

    def __init__(
        self, ops: Ops, exchange: Exchange, shape: StepShape, compute_gradients: Work, decide_and_update: Work
    ) -> None:
        self._synchronize = ops.synchronize
        self._exchange = exchange
        self._shape = shape
        self._compute_gradients = ops.capture(compute_gradients)
        self._decide_and_update = ops.capture(decide_and_update)

    def run(self, count: int, stop: bool) -> tuple[float, float]:
        assert count == 1
        started = time.perf_counter()
        self._compute_gradients()
        self._synchronize()
        computed = time.perf_counter()
        self._exchange.combine(self._shape.num_micro_batches, stop, measure_error=self._shape.observe)
        exchanged = time.perf_counter()
        self._decide_and_update()
        return computed - started, exchanged - computed


class DeviceReplay:
    """Whole steps as graphs, exchange included, up to `steps_per_replay` in one replay."""

    def __init__(
        self, ops: Ops, exchange: Exchange, shape: StepShape, compute_gradients: Work, decide_and_update: Work
    ) -> None:
        # Ranks that run without the host would have to agree on the number of steps, and on when to stop.
        assert exchange.transport.world_size == 1 or isinstance(exchange.compressor, NoExchange)
        self._ops = ops
        self._work = (compute_gradients, lambda: exchange.combine(shape.num_micro_batches), decide_and_update)

    def run(self, count: int, stop: bool) -> tuple[None, float]:  # noqa: ARG002
        while count >= self._ops.steps_per_replay:
            self._several()
            count -= self._ops.steps_per_replay
        for _ in range(count):
            self._one()
        return None, 0.0

    @cached_property
    def _one(self) -> Work:
        return self._ops.capture(self._step)

    @cached_property
    def _several(self) -> Work:
        def work() -> None:
            for _ in range(self._ops.steps_per_replay):
                self._step()

        return self._ops.capture(work)

    def _step(self) -> None:
        for part in self._work:
            part()
