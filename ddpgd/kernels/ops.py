"""The contract of the kernels, written once: what every backend does, in formulas.

Shape letters: B rows of a micro-batch, G micro-batches computed side by side, R = all their rows (the last micro-batch
may be shorter), K inputs, N outputs, C classes, n elements of a flat vector.
An op overwrites what it is given as output; nothing else changes unless its contract says so. Arrays are C-contiguous,
where a contract does not call them rows or strided; rows (G, n) are contiguous in themselves, at any distance. So are those
of x, out, dout and dx of layers, which may be windows of columns.
No op allocates after its first call with a shape, and none waits for the host but `to_host` and `synchronize`.

Types: vectors (params, grads, tails) are float32; activations and the weights of products are `activation_dtype`,
float32 or one of 16 bits, sums are float32 inside; the reference can be float64 throughout, for proofs.
A result for one micro-batch does not depend, in any bit, on which others are computed beside it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from ddpgd.kernels.augmentation import Augmentation
from ddpgd.kernels.codec_ops import WireOps
from ddpgd.kernels.device_ops import Array, DeviceOps
from ddpgd.kernels.dropout import Dropout, Rows
from ddpgd.kernels.words import Policy


def side_by_side(weights: Sequence[Array], axis: int) -> list[slice]:
    """Returns where each of `weights` lies along an axis of all of them together."""
    if len(weights) == 1:
        return [slice(0, weights[0].shape[axis])]
    ends = accumulate(weight.shape[axis] for weight in weights)
    return [slice(end - weight.shape[axis], end) for weight, end in zip(weights, ends, strict=True)]


class Ops(DeviceOps, Protocol):
    """Everything a backend does. `name` is what `--backend` and the summary call it."""

    name: str
    products: str
    """The library of matrix products and its version, or "own kernels": ranks that differ in it have other bits."""
    vector_dtype: np.dtype[Any]
    activation_dtype: np.dtype[Any]
    """As stored: bfloat16, which NumPy does not know, as uint16."""

    @property
    def wire(self) -> WireOps:
        """The ops of codecs."""

    def fused(self) -> AbstractContextManager[None]:
        """A context in which ops may run together and later, at its end, with the bits that they have alone.

        Only the ops that gather, `dropout`, those of layers and losses, `decide`, `update` and `update_matrix` may be called
        in it. An output that only others of them read need not be written.
        """

    def batched_micro_batches(self, micro_batch: int, size: int) -> int:
        """Number of micro-batches of so many rows, with gradients of `size` elements, to compute side by side.

        A power of two.
        """

    def round_weights(self, params: Array) -> Array:
        """The weights that products read: params (n,) itself, or a new copy (n,) in `activation_dtype`."""

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
        """x[r] = (images[i] / 255 - mean) / std; y[r] = labels[i], for i = order[cursor[FIRST] + offset + r].

        images uint8 (n, K), labels uint8 (n,), order int64, cursor int64 (CURSOR_WORDS,), x (R, K), y int64 (R,).
        """

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
        """As `gather_normalise`, of images that `augmentation` transforms: sample i as in epoch cursor[EPOCH].

        A row does not depend, in any bit, on the others.
        """

    def dropout(self, x: Array, rows: Rows, dropout: Dropout, first: int, out: Array) -> None:
        """out[r, c] = 0 if draw(r, first + c) < threshold, else scale x[r, c]; the gradient of x, where x is that of out.

        draw(r, u) is the u-th 16 bits of what `philox.sample_words` makes of the sample of row r, its epoch and the layer.
        x and out (R, n) are units [first, first + n) of the layer's inputs; out may be x.
        """

    def dense_forward(
        self,
        x: Array,
        weights: Sequence[Array],
        biases: Sequence[Array],
        activation: str,
        micro_batch: int,
        out: Array,
    ) -> None:
        """out = activation(x weight + bias). x (R, K), weights (K, N_i), biases float32 (N_i,), out (R, N).

        weights and biases are those of shards, side by side; each product has the bits that it would have alone.
        activation: relu, tanh, sigmoid or identity; with identity, out is float32: logits.
        """

    def dense_backward_params(self, x: Array, dout: Array, micro_batch: int, dweight: Array, dbias: Array) -> None:
        """Per micro-batch g: dweight[g] = x_g^T dout_g; dbias[g] = sum over rows of dout_g.

        x (R, K), dout (R, N); dweight float32 (G, K, N) and dbias (G, N) are windows of rows.
        """

    def dense_backward_input(
        self, dout: Array, weights: Sequence[Array], x: Array, activation: str, micro_batch: int, dx: Array
    ) -> None:
        """dx = (dout weight^T) * activation'(x), where x (R, K) is what `activation` put out. dx (R, K), not x itself.

        weights (K_i, N) are those of shards, one above the other; each product has the bits that it would have alone.
        With identity, dx is float32: a part of a sum that `activation_backward` takes.
        """

    def activation_backward(self, dout: Array, x: Array, activation: str, dx: Array) -> None:
        """dx = dout * activation'(x), where x (R, K) is what `activation` put out. dout float32 (R, K), dx (R, K)."""

    def copy(self, values: Array, out: Array) -> None:
        """out = values, of the same shape and dtype; both may be windows of columns."""

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
        """Softmax and cross-entropy, loss = -sum over classes of target log softmax(logits) per sample.

        target (R, C) = (1 - smoothing) one_hot(labels) + smoothing / C: Szegedy et al., "Rethinking the Inception
        architecture for computer vision", 2016.
        logits float32 (R, C), labels int64 (R,); dlogits (R, C) = LOSS_SCALE * (softmax(logits) - target);
        tails (G, TAIL_WORDS), rows, one a micro-batch: LOSS_SUM, SAMPLES (its rows), CORRECT (the first largest
        logit is the label) and NON_FINITE (1 where LOSS_SUM is not finite) are set, all other words are 0.
        """

    def mean_squared_error(
        self, logits: Array, labels: Array, micro_batch: int, control: Array, dlogits: Array, tails: Array
    ) -> None:
        """loss = mean over classes of (logits - one_hot(label))^2 per sample; other arguments as for cross_entropy."""

    def add(self, left: Array, right: Array, out: Array) -> None:
        """out = left + right, flat (n,); out may be left or right. The addition that a canonical sum uses."""

    def tree_sum(self, rows: Array, out: Array) -> None:
        """out = the canonical sum of rows (G, n): the complete binary tree over them. `rows` are undefined afterwards.

        out (n,) may be rows[0].
        """

    def squared_norms(self, rows: Array, out: Array) -> None:
        """out[g] = sum of squares of rows[g], n whole blocks: by blocks of 1,024, then the binary tree over blocks.

        rows (G, n), out float32 (G,), strided.
        """

    def decide(
        self, grads: Array, tail: Array, rates: Array, cursor: Array, control: Array, history: Array, policy: Policy
    ) -> None:
        """Decides, alike on all ranks, from the summed gradient (n,) and its tail (TAIL_WORDS,).

        scale = 1 / (SAMPLES LOSS_SCALE); norm = sqrt(squared norm of grads) scale. Is NON_FINITE 0 and the norm finite,
        and the run not HALTED: APPLY = 1, UPDATE grows by 1, SCALE = scale, times clip_norm / norm where that is
        less than 1; LR and MOMENTUM are the words of rates[cursor[STEP]], LR times LR_FACTOR, rates float64 (steps,
        RATE_WORDS); CLIP_VALUE = clip_value. Else APPLY = 0, and, where only the norm is not finite and the loss scale
        may and can (> 1) be halved, it is; else HALTED = 1, and nothing is applied until the host clears it.
        With SAMPLES 0, where a rank updates by itself and has none: scale 0, APPLY = 0, and HALTED stays as it is.
        history[cursor[RECORD] % its rows] tells the step; cursor moves on: FIRST by global_batch, STEP and RECORD by 1.
        control float64 (CONTROL_WORDS,), history float64 (rows, HISTORY_WORDS), whose other words are left as they are.
        """

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
        """Decides as `decide`, from the squared norms of grads' blocks of 1,024: float32 (n / 1024,), overwritten."""

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
        """params -= change, by the formula called `rule` in the table `optim.rules.RULES`.

        A formula reads g = SCALE grads + weight_decay params, lr = LR, t = UPDATE, and the hyper-parameters `hyper`, of
        which MOMENTUM takes the place of the first, and CLIP_VALUE bounds elements of SCALE grads, unless they are 0. It
        reads and changes the vectors `state`. Hyper-parameters and vectors come in the table's order. params, grads and
        the vectors are (n,); grads stays as it is. weights, which `round_weights` made, follows params.
        Nothing happens where APPLY is 0. Elements that are zero in all vectors (the padding between tensors) stay zero.
        On CPUs elements of `state` below 1e-30 become 0 where UPDATE is a multiple of 128; on GPUs those below 1.2e-38 always.
        """

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
        """params -= change, by the formula of "muon" in the table `optim.rules.RULES`; see `update`.

        params, grads, exp_avg, weights: windows (K, N) of vectors. The matrix is orthogonalised in the dtype of vectors,
        float32, by the iterations of `kernels.newton_schulz`; its bits depend on nothing but the matrix.
        """

    def limit_norms(self, weight: Array, weights: Array, control: Array, limit: float) -> None:
        """weight[:, j] *= limit / norm[j], where norm[j] = |weight[:, j]| > limit; nothing where APPLY is 0.

        weight (K, N) is a part of params; weights, which `round_weights` made, follows. Sums of squares have one order: 32
        partial sums, of rows 0, 32, 64, ..., rows 1, 33, ..., then the binary tree over them.
        """
