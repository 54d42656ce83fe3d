"""Snapshots of a run: its whole state, copied from its ranks, and written as checkpoints while training goes on."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.agreement import on_root
from ddpgd.comm.transport import Alone, Transport
from ddpgd.config.schema import Config, to_table
from ddpgd.kernels.ops import Ops
from ddpgd.params import Layout
from ddpgd.run import checkpoint, failures, resharding
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.folder import RunFolder
from ddpgd.run.inject import Faults
from ddpgd.run.saver import Saver
from ddpgd.run.stderr import say
from ddpgd.training.state import TrainState


class Snapshots:
    """`Saves` of a run on one rank: its state, that of all ranks on rank 0, in memory and on disk.

    `facts()` returns what a checkpoint says of the run beside its state and its configuration.
    """

    def __init__(
        self,
        ops: Ops,
        transport: Transport,
        layout: Layout,
        state: TrainState,
        config: Config,
        folder: RunFolder,
        faults: Faults,
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        self._ops = ops
        self._transport = transport
        self._layout = layout
        self._state = state
        self._config = config
        self._folder = folder
        self._faults = faults
        self._facts = facts
        self._saver = Saver(say)

    def copy(self) -> Checkpoint:
        """Returns a copy of all that this rank holds: the whole, where nothing is divided among ranks."""
        return self._gathered(Alone())[0]

    def wait_for_last(self) -> None:
        self._saver.wait_for_last()

    def begin(self) -> None:
        saved, params = self._gathered(self._transport)
        if self._transport.rank == 0:
            self._saver.save(self._state.counters.step, partial(self._write, saved, params))

    def finish(self) -> None:
        on_root(self._transport, self._saver.finish)

    def close(self) -> None:
        """Waits until nothing is written any more."""
        self._saver.close()

    def _gathered(self, transport: Transport) -> tuple[Checkpoint, NDArray[np.float32]]:
        """Returns, on rank 0 of `transport`, a checkpoint and the params of the whole network; every rank of it calls it."""
        self._state.read_loss_scale(self._ops)
        params = resharding.whole_params(self._ops, transport, self._state)
        arrays = resharding.gather(self._ops, transport, self._layout, self._state, params)
        return Checkpoint(arrays, asdict(self._state.counters), to_table(self._config), self._facts()), params

    def _write(self, saved: Checkpoint, params: NDArray[np.float32], moved: Callable[[], None]) -> None:
        """Writes a checkpoint, in a thread of its own."""
        facts = dict(saved.facts) | {"params_sha256": self._layout.sha256(params)}
        with failures.in_one_line():
            self._faults.check_disk(self._folder.checkpoints)
            checkpoint.save(self._folder.checkpoints, replace(saved, facts=facts), moved)
