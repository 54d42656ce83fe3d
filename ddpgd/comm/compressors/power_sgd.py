"""Low-rank wires: a layer's gradient travels as the product of two narrow matrices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ddpgd.comm import traffic
from ddpgd.comm.compressor import Array, Setup, Window
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.traffic import Traffic
from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import Purpose, uniforms
from ddpgd.kernels.words import TAIL_WORDS


class PowerSgd:
    """`Compressor` of low rank: Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression", 2019.

    Algorithms 1 and 2. Instead of a matrix M, ranks sum P = M Q, make the sum orthonormal, and sum Q = M^T P. The result
    is P Q^T, and Q is the first guess of the next round. A rank adds M - P Q^T of its own to its next M. All sums are
    ordered. Vectors, and matrices that two narrow ones would not make smaller, travel as they are.
    """

    name = "powersgd"

    def __init__(
        self,
        transport: Transport,
        ops: Ops,
        size: int,
        windows: Sequence[Window],
        rank: int,
        batch_fraction: Callable[[int], float],
        seed: int,
    ) -> None:
        """Creates the vectors and the two sums.

        Args:
            transport: The ranks.
            ops: The backend where gradients are.
            size: Elements of the gradient.
            windows: All tensors.
            rank: Columns of P and Q.
            batch_fraction: As in `Setup`.
            seed: The seed of the first guess of Q.
        """
        self.needs_host = transport.needs_host
        self._ops = ops
        self._world_size = transport.world_size
        self._batch_fraction = batch_fraction
        narrowed = [window for window in windows if _is_narrowed(window, rank)]
        whole = [window for window in windows if not _is_narrowed(window, rank)]
        lefts = [(window.shape[0], rank) for window in narrowed]
        places, num_first = _in_a_row([*lefts, *(window.shape for window in whole)])
        rights, num_second = _in_a_row([(window.shape[1], rank) for window in narrowed])
        self._matrices = [_Matrix(*both) for both in zip(narrowed, places[: len(narrowed)], rights, strict=True)]
        self._whole = [_Whole(*both) for both in zip(whole, places[len(narrowed) :], strict=True)]
        self._first = Exchange(transport, ops, num_first)
        self._second = Exchange(transport, ops, num_second)
        self._no_tail = ops.zeros((TAIL_WORDS,), np.float32)
        self._zeros = ops.zeros((max([num_second, *(window.size for window in whole)]),), np.float32)
        draws = (uniforms(seed, Purpose.LOW_RANK, 0, num_second) - 0.5).astype(np.float32)
        self._spare, guess = (ops.from_host(draws.copy()) for _ in ("spare", "guess"))
        self.residuals = {"kept": ops.zeros((size,), np.float32)}
        self.replicated = {"right": guess}

    @property
    def bytes_sent(self) -> int:
        return self._first.transport.bytes_sent + self._second.transport.bytes_sent

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        batch_fraction = self._batch_fraction(round)
        self._ops.wire.accumulate(grads, 1 / batch_fraction, None, 0.0, self.residuals["kept"])
        sums, summed_tail = self._first.sum(self._world_size, partial(self._narrow, tail))
        narrow, _ = self._second.sum(self._world_size, partial(self._narrow_back, sums))
        self._ops.add(summed_tail, self._no_tail, tail)
        self._widen(sums, narrow, batch_fraction, grads)

    def _narrow(self, tail: Array, _own: int, row: Array, sums: Array) -> None:
        """Writes this rank's P, for the guess of Q, and the tensors that travel as they are, into a row of the first sum."""
        wire, residual, right = self._ops.wire, self.residuals["kept"], self.replicated["right"]
        for matrix in self._matrices:
            wire.project(matrix.window.of(residual), matrix.right.of(right), matrix.left.of(row))
        for whole in self._whole:
            whole.place.of(row).fill(0)
            wire.accumulate(whole.window.of(residual), 1.0, None, 0.0, whole.place.of(row))
            self._copy(self._zeros[: whole.window.size], whole.window.of(residual).reshape(-1))
        self._ops.add(tail, self._no_tail, sums)

    def _narrow_back(self, sums: Array, _own: int, row: Array, _sums: Array) -> None:
        """Writes this rank's Q, for the sum of P, into a row of the second sum; leaves M - P Q^T in the residual."""
        wire, residual = self._ops.wire, self.residuals["kept"]
        for matrix in self._matrices:
            left, right, meant = matrix.left.of(sums), matrix.right.of(row), matrix.window.of(residual)
            wire.orthonormalise(left, None)
            wire.project_back(meant, left, right)
            wire.add_product(left, right, -1.0, meant)

    def _widen(self, sums: Array, narrow: Array, batch_fraction: float, grads: Array) -> None:
        """Computes P Q^T of the sums. The next guess has orthonormal columns, so that none can fade away."""
        wire, guess = self._ops.wire, self.replicated["right"]
        grads.fill(0)
        self._copy(narrow, guess)
        for matrix in self._matrices:
            wire.add_product(matrix.left.of(sums), matrix.right.of(narrow), batch_fraction, matrix.window.of(grads))
            wire.orthonormalise(matrix.right.of(guess), matrix.right.of(self._spare))
        for whole in self._whole:
            wire.accumulate(whole.place.of(sums), batch_fraction, None, 0.0, whole.window.of(grads))

    def _copy(self, source: Array, target: Array) -> None:
        """target = source + 0, by an op: `fill` would change, when work is captured, what a step needs from the one before."""
        self._ops.add(source, self._zeros[: source.size], target)


@dataclass(frozen=True)
class _Matrix:
    """A tensor that travels as two: its place in the gradient, and theirs in the rows of the two sums."""

    window: Window
    left: Window
    right: Window


@dataclass(frozen=True)
class _Whole:
    """A tensor that travels as it is: its places in the gradient and in the row of the first sum."""

    window: Window
    place: Window


def make(setup: Setup) -> PowerSgd:
    """Makes the compressor of `--wire powersgd`."""
    rank = setup.options["powersgd_rank"]
    return PowerSgd(setup.transport, setup.ops, setup.size, setup.windows, rank, setup.batch_fraction, setup.seed)


def sums(narrow: tuple[int, int], world_size: int) -> list[Traffic]:
    """Returns the traffic of an exchange, for the elements of its two sums; see `num_narrow`."""
    return [traffic.ordered(size, [1] * world_size, lambda n: 4 * n, exact=True) for size in narrow]


def num_narrow(windows: Sequence[Window], rank: int) -> tuple[int, int]:
    """Returns the numbers of elements of the two sums in which gradients of these tensors travel."""
    narrowed = [window.shape for window in windows if _is_narrowed(window, rank)]
    whole = sum(window.size for window in windows if not _is_narrowed(window, rank))
    return whole + rank * sum(shape[0] for shape in narrowed), rank * sum(shape[1] for shape in narrowed)


def _is_narrowed(window: Window, rank: int) -> bool:
    return len(window.shape) == 2 and rank * sum(window.shape) < window.size


def _in_a_row(shapes: list[tuple[int, ...]]) -> tuple[list[Window], int]:
    """Returns windows one after the other, and their end."""
    windows, start = [], 0
    for shape in shapes:
        windows.append(Window(start, shape))
        start += windows[-1].size
    return windows, start
