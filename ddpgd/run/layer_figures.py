"""Figures of layers for records: norms of gradients and updates, and shares of dead and saturated units."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm import bulk
from ddpgd.comm.bulk import Places
from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import BLOCK
from ddpgd.model.layers import Layer, layer_starts, network_layout
from ddpgd.training.counters import Record, finite_or_none
from ddpgd.training.protocols import Sync
from ddpgd.training.step_result import StepResult
from ddpgd.training.units import UnitProbe
from ddpgd.training.update_norms import BlockNorms


class LayerFigures:
    """Makes figures of layers of what each rank has measured of its part; equal in every layout, bit for bit.

    Attributes:
        probe: Counts units, for the evaluations of the run.
    """

    def __init__(self, ops: Ops, transport: Transport, layers: Sequence[Layer], step: Sync) -> None:
        """`layers`: of the whole network. `step`: this rank's."""
        starts = [*layer_starts(layers), network_layout(layers).size]
        held = step.state.held
        self.probe = UnitProbe(ops, step.passes.network)
        self._transport = transport
        self._names = [layer.name for layer in layers]
        self._starts = [start // BLOCK for start in starts]
        self._params, self._optimizer = _in_blocks(held.params), _in_blocks(held.optimizer)

    def __call__(self, result: StepResult, evaluated: bool) -> Record:
        """Returns, on rank 0, figures for the record of a step: lists of a number for each layer; every rank calls it."""
        of_update = self._of_update(result.block_norms) if result.block_norms else {}
        return of_update | (self._of_units() if evaluated else {})

    def _of_update(self, norms: BlockNorms) -> Record:
        """Returns, on rank 0, norms of the mean gradient and of the params, and what the update changed of the latter."""
        grads = self._gathered(norms.grads, self._optimizer)
        params, changes = (self._gathered(own, self._params) for own in (norms.params, norms.changes))
        if self._transport.rank > 0:
            return {}
        return {
            "layer_grad_norms": [finite_or_none(norm * norms.grad_scale) for norm in grads],
            "layer_param_norms": list(map(finite_or_none, params)),
            "layer_update_ratios": [
                finite_or_none(change / norm) if norm else None for change, norm in zip(changes, params, strict=True)
            ],
        }

    def _of_units(self) -> Record:
        """Returns shares of the units of hidden layers, of what all ranks have counted."""
        totals: dict[str, Counter[str]] = {}
        for own in self._transport.all_gather_objects(self.probe.counts):
            for name, counts in own.items():
                totals.setdefault(name, Counter()).update(counts)
        hidden = [totals[name] for name in self._names if name in totals]
        return {
            f"layer_{kind}_shares": [one[kind] / one["units"] for one in hidden]
            for kind in ("dead", "saturated")
            if any(kind in one for one in hidden)
        }

    def _gathered(self, own: NDArray[np.float32], places: Sequence[Places]) -> list[float]:
        """Returns, on rank 0, the norm of each layer: blocks are added in order, in float64."""
        blocks = bulk.gather_parts(self._transport, own, places, self._starts[-1])
        if self._transport.rank > 0:
            return []
        return [math.sqrt(total) for total in np.add.reduceat(blocks.astype(np.float64), self._starts[:-1]).tolist()]


def _in_blocks(places: Sequence[Places]) -> list[Places]:
    return [tuple(slice(span.start // BLOCK, span.stop // BLOCK) for span in own) for own in places]
