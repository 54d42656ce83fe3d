"""Layers that are computed shard by shard, by one rank or by several: the same bits, however shards lie on ranks.

Hidden layers are cut by outputs, the last by inputs. A rank has whole-width arrays, of which its own shards' columns hold:
it gathers the others' columns of x before a hidden layer. What is summed over shards (a gradient by x, the logits) is added
in the order of the complete binary tree over shards. Shoeybi et al., "Megatron-LM", 2019, call layers cut by outputs column
parallel, by inputs row parallel; they do both by turns, which takes fewer messages and leaves each bias on all ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, TypeVar

import numpy as np

from ddpgd.comm.transport import Transport
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Dropout
from ddpgd.kernels.kept import Kept
from ddpgd.kernels.ops import Ops
from ddpgd.model.layers import Layer, Mode
from ddpgd.model.shards import ColumnGather, Shards, ShardSum
from ddpgd.params import Parameter, Unit

T = TypeVar("T")


@dataclass(eq=False)
class ColumnParallel:
    """`Layer`: out = activation(x weight + bias), each shard of which has some columns of out, weight and bias.

    `input_activation`: as in `Dense`; "identity" for the inputs of a network, of which every rank has all columns.
    """

    name: str
    num_inputs: int
    num_outputs: int
    activation: str
    input_activation: str
    shards: Shards
    transport: Transport
    dropout: Dropout | None = None
    fusable: ClassVar[bool] = False

    @property
    def own_inputs(self) -> slice:
        if self.input_activation == "identity":
            return slice(0, self.num_inputs)
        return self.shards.columns_of_ranks(self.num_inputs)[self.shards.rank]

    def __post_init__(self) -> None:
        columns = self.shards.columns(self.num_outputs)
        self._columns = [columns[shard] for shard in self.shards.own]
        self._gathers: Kept[ColumnGather] = Kept()
        self._sums: dict[int, ShardSum] = {}

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(self._unit(columns) for columns in self._columns)

    @property
    def own_outputs(self) -> slice:
        return slice(self._columns[0].start, self._columns[-1].stop)

    def _unit(self, columns: slice) -> Unit:
        window = slice(0, self.num_inputs), columns
        weight = Parameter(f"{self.name}.weight", (self.num_inputs, self.num_outputs), True, window, is_hidden=True)
        return weight, Parameter(f"{self.name}.bias", (self.num_outputs,), window=(columns,))

    def output_dtype(self, ops: Ops) -> np.dtype[np.generic]:
        return ops.activation_dtype

    def forward(
        self, ops: Ops, mode: Mode, x: Array, params: list[Array], weights: list[Array], micro_batch: int, out: Array
    ) -> None:
        if self.input_activation != "identity":
            self._gathers.of([x], lambda: ColumnGather(ops, self.shards, self.transport, x))()
        ops.dense_forward(x, weights[::2], params[1::2], self.activation, micro_batch, out[:, self.own_outputs])

    def backward(
        self,
        ops: Ops,
        x: Array,
        activated: Array,
        dout: Array,
        weights: list[Array],
        micro_batch: int,
        grads: list[Array],
        dx: Array | None,
    ) -> None:
        for number, columns in enumerate(self._columns):
            ops.dense_backward_params(x, dout[:, columns], micro_batch, grads[2 * number], grads[2 * number + 1])
        if dx is None:
            return
        summed = _kept(self._sums, len(x), lambda: ShardSum(ops, self.shards, self.transport, *x.shape))
        for number, (columns, slot) in enumerate(zip(self._columns, summed.slots, strict=True)):
            ops.dense_backward_input(dout[:, columns], [weights[2 * number]], x, "identity", micro_batch, slot)
            summed.add(number)
        own = self.own_inputs
        ops.activation_backward(summed.total(), activated[:, own], self.input_activation, dx[:, own])


@dataclass(eq=False)
class RowParallel:
    """`Layer`: out = x weight + bias, each shard of which has some rows of weight; the first has the bias."""

    name: str
    num_inputs: int
    num_outputs: int
    input_activation: str
    shards: Shards
    transport: Transport
    activation: ClassVar[str] = "identity"
    dropout: Dropout | None = None
    fusable: ClassVar[bool] = False

    @property
    def own_inputs(self) -> slice:
        return self.shards.columns_of_ranks(self.num_inputs)[self.shards.rank]

    def __post_init__(self) -> None:
        rows = self.shards.columns(self.num_inputs)
        self._rows = {shard: rows[shard] for shard in self.shards.own}
        self._has_bias = 0 in self._rows
        self._sums: dict[int, ShardSum] = {}
        # Stand-ins for the bias of shards that have none, and, by number of micro-batches, for its gradient.
        self._unused: dict[int, Array] = {}

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(self._unit(shard) for shard in self._rows)

    @property
    def own_outputs(self) -> slice:
        return slice(0, self.num_outputs)

    def _unit(self, shard: int) -> Unit:
        window = self._rows[shard], slice(0, self.num_outputs)
        weight = Parameter(f"{self.name}.weight", (self.num_inputs, self.num_outputs), True, window)
        return (weight, Parameter(f"{self.name}.bias", (self.num_outputs,)))[: 1 if shard else 2]

    def output_dtype(self, ops: Ops) -> np.dtype[np.generic]:
        return ops.vector_dtype

    def forward(
        self, ops: Ops, mode: Mode, x: Array, params: list[Array], weights: list[Array], micro_batch: int, out: Array
    ) -> None:
        shape = len(x), self.num_outputs
        summed = _kept(self._sums, len(x), lambda: ShardSum(ops, self.shards, self.transport, *shape, to_all=True))
        no_bias = _kept(self._unused, 0, lambda: ops.zeros((self.num_outputs,), ops.vector_dtype))
        for number, rows in enumerate(self._rows.values()):
            bias = params[1] if self._has_bias and number == 0 else no_bias
            weight = weights[self._place(number)]
            ops.dense_forward(x[:, rows], [weight], [bias], "identity", micro_batch, summed.slots[number])
            summed.add(number)
        ops.copy(summed.total(), out)

    def backward(
        self,
        ops: Ops,
        x: Array,
        activated: Array,
        dout: Array,
        weights: list[Array],
        micro_batch: int,
        grads: list[Array],
        dx: Array | None,
    ) -> None:
        num_groups = len(grads[0])
        unused = _kept(self._unused, num_groups, lambda: ops.zeros((num_groups, self.num_outputs), ops.vector_dtype))
        for number, rows in enumerate(self._rows.values()):
            dbias = grads[1] if self._has_bias and number == 0 else unused
            ops.dense_backward_params(x[:, rows], dout, micro_batch, grads[self._place(number)], dbias)
        if dx is None:
            return
        own = self.own_inputs
        matrices = [weights[self._place(number)] for number in range(len(self._rows))]
        ops.dense_backward_input(dout, matrices, activated[:, own], self.input_activation, micro_batch, dx[:, own])

    def _place(self, number: int) -> int:
        """The place of a shard's weight among this rank's tensors."""
        return number + (number > 0 and self._has_bias)


def sharded_layers(
    sizes: Sequence[int], activation: str, shards: Shards, transport: Transport, dropouts: Sequence[Dropout | None] = ()
) -> tuple[Layer, ...]:
    """Returns a rank's shards of layers of the given `sizes` (inputs, hidden ..., outputs), `activation` between them.

    `transport`: the ranks that share the layers. `dropouts`: as for `dense_layers`.
    """
    num_layers = len(sizes) - 1
    inputs = ("identity", *[activation] * (num_layers - 1))
    *hidden, last = zip(pairwise(sizes), inputs, dropouts or [None] * num_layers, strict=True)
    return (
        *(
            ColumnParallel(f"dense{number}", *widths, activation, before, shards, transport, dropout)
            for number, (widths, before, dropout) in enumerate(hidden, start=1)
        ),
        RowParallel(f"dense{num_layers}", *last[0], last[1], shards, transport, last[2]),
    )


def _kept(made: dict[int, T], key: int, make: Callable[[], T]) -> T:
    """Returns what make() returned when it was first asked for."""
    if key not in made:
        made[key] = make()
    return made[key]
