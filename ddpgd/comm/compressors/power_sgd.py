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
    """`Compressor`. Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression", 2019, algorithms 1, 2.

    Of a matrix M travel P = M Q, whose sum over ranks is made orthonormal, then Q = M^T P; the sum is P Q^T, and its Q
    is the next round's first guess. What a rank's own P Q^T misses of its M it adds to the next. All sums are ordered.
    Other tensors, and matrices that two narrow ones would make no smaller, travel as they are.
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
        """`windows`: all tensors. `rank`: columns of P and Q. batch_fraction(round): as in `Setup`."""
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
        draws = (uniforms(seed, Purpose.LOW_RANK, 0, num_second) - 0.5).astype(np.float32)
        self._spare, guess = (ops.from_host(draws.copy()) for _ in ("spare", "guess"))
        self.residuals = {"kept": ops.zeros((size,), np.float32)}
        self.shared = {"right": guess}

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
        """This rank's P, with a guess of Q, and what travels as it is."""
        wire, residual, right = self._ops.wire, self.residuals["kept"], self.shared["right"]
        for matrix in self._matrices:
            wire.project(matrix.window.of(residual), matrix.right.of(right), matrix.left.of(row))
        for whole in self._whole:
            whole.place.of(row).fill(0)
            wire.accumulate(whole.window.of(residual), 1.0, None, 0.0, whole.place.of(row))
            whole.window.of(residual).fill(0)
        self._ops.add(tail, self._no_tail, sums)

    def _narrow_back(self, sums: Array, _own: int, row: Array, _sums: Array) -> None:
        """This rank's Q for everybody's P; what the two miss stays in the residual."""
        wire, residual = self._ops.wire, self.residuals["kept"]
        for matrix in self._matrices:
            left, right, meant = matrix.left.of(sums), matrix.right.of(row), matrix.window.of(residual)
            wire.orthonormalise(left, None)
            wire.project_back(meant, left, right)
            wire.add_product(left, right, -1.0, meant)

    def _widen(self, sums: Array, narrow: Array, batch_fraction: float, grads: Array) -> None:
        """Everybody's P Q^T; the next guess has Q's columns made orthonormal, so that none can fade away."""
        wire, guess = self._ops.wire, self.shared["right"]
        grads.fill(0)
        guess.fill(0)
        wire.accumulate(narrow, 1.0, None, 0.0, guess)
        for matrix in self._matrices:
            wire.add_product(matrix.left.of(sums), matrix.right.of(narrow), batch_fraction, matrix.window.of(grads))
            wire.orthonormalise(matrix.right.of(guess), matrix.right.of(self._spare))
        for whole in self._whole:
            wire.accumulate(whole.place.of(sums), batch_fraction, None, 0.0, whole.window.of(grads))


@dataclass(frozen=True)
class _Matrix:
    """A tensor that travels as two: where it lies in the gradient, and they in the rows of the first and second sum."""

    window: Window
    left: Window
    right: Window


@dataclass(frozen=True)
class _Whole:
    """A tensor that travels as it is: where it lies in the gradient, and in the row of the first sum."""

    window: Window
    place: Window


def make(setup: Setup) -> PowerSgd:
    """Returns the compressor of `--wire powersgd`."""
    rank = setup.options["powersgd_rank"]
    return PowerSgd(setup.transport, setup.ops, setup.size, setup.windows, rank, setup.batch_fraction, setup.seed)


def sums(narrow: tuple[int, int], world_size: int) -> list[Traffic]:
    """Returns the traffic of an exchange, for the elements of its two sums; see `num_narrow`."""
    return [traffic.ordered(size, [1] * world_size, lambda n: 4 * n, exact=True) for size in narrow]


def num_narrow(windows: Sequence[Window], rank: int) -> tuple[int, int]:
    """Elements of the two sums in which gradients of these tensors travel."""
    narrowed = [window.shape for window in windows if _is_narrowed(window, rank)]
    whole = sum(window.size for window in windows if not _is_narrowed(window, rank))
    return whole + rank * sum(shape[0] for shape in narrowed), rank * sum(shape[1] for shape in narrowed)


def _is_narrowed(window: Window, rank: int) -> bool:
    return len(window.shape) == 2 and rank * sum(window.shape) < window.size


def _in_a_row(shapes: list[tuple[int, ...]]) -> tuple[list[Window], int]:
    """Windows one after the other, and where they end."""
    windows, start = [], 0
    for shape in shapes:
        windows.append(Window(start, shape))
        start += windows[-1].size
    return windows, start
