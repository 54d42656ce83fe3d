"""Every op on a GPU: which kernel, over which grid, with which scratch. The kernels stand in the `.cu` files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import cupy
import numpy as np

from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.cuda import joined
from ddpgd.kernels.cuda.augment import Augment
from ddpgd.kernels.cuda.columns import Columns
from ddpgd.kernels.cuda.compress import CudaWire
from ddpgd.kernels.cuda.dense import VALUE_DTYPES, Dense
from ddpgd.kernels.cuda.fusion import Call, Fuser, fusable, normalisation
from ddpgd.kernels.cuda.launcher import THREADS, Launcher, by_fours, check, count_of
from ddpgd.kernels.cuda.memory import CudaDevice
from ddpgd.kernels.cuda.orthogonal import Orthogonal
from ddpgd.kernels.cuda.sums import Sums, spans
from ddpgd.kernels.cuda.updates import decision_words, update_arguments
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.dropout import Dropout, Rows
from ddpgd.kernels.ops import side_by_side
from ddpgd.kernels.words import Policy

LOSS_ROWS = 128
"""Rows that a thread block of a loss takes; `loss.cu` says the same."""


class Cuda(CudaDevice):
    """`Ops` in CUDA."""

    name = "cupy"

    def __init__(self, device: int, precision: str, replay: str = "graph") -> None:
        """`replay`: a value of `REPLAYS`."""
        self._made_of = device, precision, replay
        cupy.cuda.Device(device).use()
        self.vector_dtype = np.dtype(np.float32)
        self.activation_dtype = np.dtype(VALUE_DTYPES[precision])
        super().__init__(Launcher(precision), replay == "persistent")
        self._dense = Dense(self._launch, precision)
        self._columns = Columns(self._launch, self.empty)
        self._augment = Augment(self._launch)
        self.wire = CudaWire(self._launch)
        name = cupy.cuda.runtime.getDeviceProperties(device)["name"].decode()
        self.products = self._dense.products
        self.device = f"{name}, CUDA {cupy.cuda.runtime.runtimeGetVersion()}, CuPy {cupy.__version__}, {self.products}"
        self._sums = Sums(self._launch)
        self._fuser = Fuser(self._launch, self._dense, self._sums)
        self._orthogonal = Orthogonal(self._launch, self.squared_norms)
        self.recorded: list[Call] | None = None

    def another(self) -> Self:
        return type(self)(*self._made_of)

    @contextmanager
    def fused(self) -> Iterator[None]:
        recorded = self.recorded = []
        try:
            yield
        finally:
            self.recorded = None
        for run in self._fuser.joined(recorded, lambda call: getattr(self, call.op)(*call.arguments)):
            run()

    def batched_micro_batches(self, micro_batch: int, size: int) -> int:
        return joined.batched_micro_batches(micro_batch, size)

    def round_weights(self, params: Array) -> Array:
        if self.activation_dtype == self.vector_dtype:
            return params
        weights = self.empty(params.shape, self.activation_dtype)
        self._launch("optimizer.cu", "round_weights", *by_fours(params), params, weights, np.int64(params.size))
        return weights

    @fusable
    def gather_normalise(
        self,
        images: Array,
        labels: Array,
        order: Array,
        cursor: Array,
        offset: int,
        mean: float,
        std: float,
        x: Array,
        y: Array,
    ) -> None:
        num_rows, num_pixels = x.shape
        check(x, self.activation_dtype)
        assert y.dtype == np.int64
        grid = count_of(num_rows * max(1, count_of(num_pixels, 16)), THREADS)
        sizes = np.int32(num_rows), np.int32(num_pixels)
        samples = images, labels, order, cursor, np.int64(offset), *normalisation(mean, std)
        self._launch("gather.cu", "gather_normalise", (grid,), (THREADS,), *samples, x, y, *sizes)

    @fusable
    def gather_augment(
        self,
        images: Array,
        labels: Array,
        order: Array,
        cursor: Array,
        offset: int,
        mean: float,
        std: float,
        augmentation: Augmentation,
        x: Array,
        y: Array,
    ) -> None:
        check(x, self.activation_dtype)
        check(y, np.int64)
        samples = images, labels, order, cursor, np.int64(offset), *normalisation(mean, std)
        self._augment(samples, augmentation, x, y)

    @fusable
    def dropout(self, x: Array, rows: Rows, dropout: Dropout, first: int, out: Array) -> None:
        self._columns.dropout(x, rows, dropout, first, out)

    @fusable
    def dense_forward(
        self,
        x: Array,
        weights: Sequence[Array],
        biases: Sequence[Array],
        activation: str,
        micro_batch: int,
        out: Array,
    ) -> None:
        packed = self._columns.packed("x", x)
        for weight, bias, columns in zip(weights, biases, side_by_side(weights, axis=1), strict=True):
            with self._columns.filling("out", out[:, columns]) as window:
                self._dense.forward(packed, weight, bias, activation, micro_batch, window)

    @fusable
    def dense_backward_params(self, x: Array, dout: Array, micro_batch: int, dweight: Array, dbias: Array) -> None:
        packed = self._columns.packed
        self._dense.backward_params(packed("x", x), packed("dout", dout), micro_batch, dweight, dbias)

    @fusable
    def dense_backward_input(
        self, dout: Array, weights: Sequence[Array], x: Array, activation: str, micro_batch: int, dx: Array
    ) -> None:
        packed = self._columns.packed("dout", dout)
        for weight, columns in zip(weights, side_by_side(weights, axis=0), strict=True):
            inputs = self._columns.packed("x", x[:, columns])
            with self._columns.filling("dx", dx[:, columns]) as window:
                self._dense.backward_input(packed, weight, inputs, activation, micro_batch, window)

    def activation_backward(self, dout: Array, x: Array, activation: str, dx: Array) -> None:
        self._columns.activation_backward(dout, x, activation, dx)

    def copy(self, values: Array, out: Array) -> None:
        self._columns.copy(values, out)

    @fusable
    def cross_entropy(
        self,
        logits: Array,
        labels: Array,
        micro_batch: int,
        control: Array,
        dlogits: Array,
        tails: Array,
        smoothing: float = 0.0,
    ) -> None:
        self._loss("cross_entropy", logits, labels, micro_batch, smoothing, control, dlogits, tails)

    @fusable
    def mean_squared_error(
        self, logits: Array, labels: Array, micro_batch: int, control: Array, dlogits: Array, tails: Array
    ) -> None:
        self._loss("mean_squared_error", logits, labels, micro_batch, 0.0, control, dlogits, tails)

    def add(self, left: Array, right: Array, out: Array) -> None:
        for array in (left, right, out):
            check(array, np.float32)
        self._launch("reduce.cu", "add", *by_fours(out), left, right, out, np.int64(out.size))

    def tree_sum(self, rows: Array, out: Array) -> None:
        check(out, np.float32)
        stride, groups = np.int64(_stride(rows)), np.int32(len(rows))
        self._launch("reduce.cu", "tree_sum", *by_fours(out), rows, stride, groups, out, np.int64(out.size))

    def squared_norms(self, rows: Array, out: Array) -> None:
        groups, (parts, *sizes) = len(rows), spans(rows.shape[1])
        partials, counters = self._sums("norms", groups, groups, parts)
        strides = np.int64(_stride(rows)), *sizes
        out_stride = np.int64(out.strides[0] // out.itemsize)
        where = (parts, groups), (THREADS,)
        self._launch("reduce.cu", "squared_norms", *where, rows, *strides, partials, counters, out, out_stride)

    @fusable
    def decide(
        self, grads: Array, tail: Array, rates: Array, cursor: Array, control: Array, history: Array, policy: Policy
    ) -> None:
        check(grads, np.float32)
        parts, *sizes = spans(grads.size)
        sums = grads, *sizes, *self._sums("decide", 1, 1, parts)
        words = decision_words(tail, rates, cursor, control, history, policy)
        self._launch("decide.cu", "decide", (parts,), (THREADS,), *sums, *words)

    def decide_by_norms(
        self,
        block_norms: Array,
        tail: Array,
        rates: Array,
        cursor: Array,
        control: Array,
        history: Array,
        policy: Policy,
    ) -> None:
        check(block_norms, np.float32)
        num_blocks = len(block_norms)
        spare, _ = self._sums("decide_by_norms", 1, 1, num_blocks)
        words = decision_words(tail, rates, cursor, control, history, policy)
        self._launch("decide.cu", "decide_by_norms", (1,), (THREADS,), block_norms, np.int32(num_blocks), spare, *words)

    @fusable
    def update(
        self,
        rule: str,
        params: Array,
        grads: Array,
        state: Sequence[Array],
        control: Array,
        weight_decay: float,
        hyper: Sequence[float],
        weights: Array,
    ) -> None:
        arguments = update_arguments(params, grads, state, weight_decay, hyper, weights)
        self._launch("optimizer.cu", rule, *by_fours(params), *arguments, control)

    @fusable
    def update_matrix(
        self,
        params: Array,
        grads: Array,
        exp_avg: Array,
        control: Array,
        weight_decay: float,
        beta: float,
        weights: Array,
    ) -> None:
        self._orthogonal.update(params, grads, exp_avg, control, weight_decay, beta, weights)

    def limit_norms(self, weight: Array, weights: Array, control: Array, limit: float) -> None:
        check(weight, np.float32)
        num_rows, width = weight.shape
        copy = None if weights is weight else weights
        arguments = weight, copy, control, np.float32(limit), np.int32(num_rows), np.int32(width)
        self._launch("limit_norms.cu", "limit_norms", (count_of(width, 32),), (1024,), *arguments)

    def _loss(
        self,
        kernel: str,
        logits: Array,
        labels: Array,
        micro_batch: int,
        smoothing: float,
        control: Array,
        dlogits: Array,
        tails: Array,
    ) -> None:
        num_rows, num_classes = logits.shape
        check(logits, np.float32)
        check(dlogits, self.activation_dtype)
        groups, chunks = len(tails), count_of(min(micro_batch, num_rows), LOSS_ROWS)
        partials, counters = self._sums("loss", 2 * groups, groups, chunks)
        sizes = np.int32(num_rows), np.int32(num_classes), np.int32(micro_batch), np.float32(smoothing)
        outputs = dlogits, tails, np.int64(_stride(tails)), partials, counters
        where = (chunks, groups), (LOSS_ROWS,)
        self._launch("loss.cu", kernel, *where, logits, labels, *sizes, control, *outputs)


def _stride(rows: Array) -> int:
    """Elements from one row of a matrix to the next."""
    assert rows.strides[1] == rows.itemsize, "rows that are not contiguous"
    return rows.strides[0] // rows.itemsize
