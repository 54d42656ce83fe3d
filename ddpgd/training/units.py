"""Dead and saturated units of hidden layers, counted over the first micro-batch of an evaluation."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.rows import Group
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.reference.codecs import FORMULAS
from ddpgd.model.network import Network

Outputs = NDArray[np.floating]
"""Outputs of a layer, (B, N)."""

SATURATED_SHARE = 0.99
"""Share of samples at which a unit must be near a bound to count as saturated."""


class Useless(NamedTuple):
    """Outputs at which a unit passes on no gradient.

    Attributes:
        kind: "dead" or "saturated".
        holds: holds(outputs) -> True where an output is one of them.
        share: Share of the samples at which that must be so for the unit to count.
    """

    kind: str
    holds: Callable[[Outputs], NDArray[np.bool_]]
    share: float = SATURATED_SHARE


USELESS = {
    "relu": Useless("dead", lambda outputs: outputs == 0, share=1.0),
    # Derivatives are below a hundredth of the largest one beyond these bounds.
    "tanh": Useless("saturated", lambda outputs: np.abs(outputs) > 0.995),
    "sigmoid": Useless("saturated", lambda outputs: np.abs(outputs - 0.5) > 0.4975),
}
"""By activation. Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010."""


class UnitProbe:
    """Counts units while an evaluation is under way.

    Attributes:
        counts: Of this rank's "units" of each hidden layer, and of those that are "dead", or "saturated", at the last
            evaluation; empty where another rank computed the first micro-batch.
    """

    def __init__(self, ops: Ops, network: Network) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self._ops = ops
        self._network = network

    def see(self, group: Group, num_rows: int, micro_batch: int) -> None:
        """Counts if `group`, whose `num_rows` rows have just been computed, has the first micro-batch."""
        if group.micro_batches.start > 0:
            return
        stage = self._network.stage
        for layer, out in zip(stage.layers, stage.buffers(num_rows).outputs[1:], strict=True):
            if useless := USELESS.get(layer.activation):
                own = _as_float(self._ops.to_host(out[:micro_batch]))[:, layer.own_outputs]
                count = (useless.holds(own).mean(axis=0) >= useless.share).sum()
                self.counts[layer.name] = {"units": own.shape[1], useless.kind: int(count)}


def _as_float(values: Array) -> Outputs:
    """Returns activations as NumPy's floats: bfloat16 is stored as uint16."""
    return FORMULAS["bfloat16"].widen(values) if values.dtype == np.uint16 else values
