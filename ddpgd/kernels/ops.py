"""The contract of the kernels, written once: what every backend does, in formulas.

Shape letters: B rows of a micro-batch, K inputs, N outputs, C classes, n elements of a flat vector.
An op overwrites what it is given as `out`; nothing else changes unless its contract says so. Arrays are C-contiguous,
float32 (or float64 in the reference, for proofs); no op allocates after its first call with a shape.
"""

from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]


class Ops(Protocol):
    """Everything a backend does. `name` is what `--backend` and the summary call it."""

    name: str

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An uninitialised array where the backend computes."""

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of zeros where the backend computes."""

    def from_host(self, values: Array) -> Array:
        """A copy (or, where host and device are one, the array itself) of host `values` where the backend computes."""

    def to_host(self, values: Array) -> Array:
        """A NumPy array with `values`; the array itself where host and device are one."""

    def gather_normalise(
        self, images: Array, labels: Array, indices: Array, mean: float, std: float, x: Array, y: Array
    ) -> None:
        """x[b] = (images[indices[b]] / 255 - mean) / std; y[b] = labels[indices[b]].

        images uint8 (n, K), labels uint8 (n,), indices int64 (B,), x (B, K), y int64 (B,).
        """

    def dense_forward(self, x: Array, weight: Array, bias: Array, activation: str, out: Array) -> None:
        """out = activation(x weight + bias). x (B, K), weight (K, N), bias (N,), out (B, N).

        activation: relu, tanh, sigmoid or identity.
        """

    def dense_backward_params(self, x: Array, dout: Array, dweight: Array, dbias: Array) -> None:
        """dweight = x^T dout; dbias = sum over rows of dout. x (B, K), dout (B, N), dweight (K, N), dbias (N,)."""

    def dense_backward_input(self, dout: Array, weight: Array, x: Array, activation: str, dx: Array) -> None:
        """dx = (dout weight^T) * activation'(x), where x (B, K) is what `activation` put out. dx (B, K), not x itself."""

    def cross_entropy(self, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
        """Softmax and cross-entropy, loss = -log softmax(logits)[label] per sample.

        logits (B, C), labels int64 (B,); dlogits (B, C) = softmax(logits) - one_hot(labels), the gradient of the sum;
        tail (TAIL_WORDS,): LOSS_SUM, CORRECT (first largest logit is the label) and SAMPLES (B) are set.
        """

    def mean_squared_error(self, logits: Array, labels: Array, dlogits: Array, tail: Array) -> None:
        """loss = mean over classes of (logits - one_hot(label))^2 per sample; arguments as for cross_entropy."""

    def add(self, left: Array, right: Array, out: Array) -> None:
        """out = left + right, flat (n,); out may be left or right. The only addition that a canonical sum uses."""

    def squared_norm(self, x: Array) -> float:
        """Sum of squares of x (n,), n whole blocks: by blocks of 1,024, then the complete binary tree over blocks."""

    def sgd(self, params: Array, grads: Array, lr: float, scale: float, weight_decay: float) -> None:
        """g = scale grads + weight_decay params; params -= lr g. All (n,); grads is left as it is.

        Where params, grads and an optimizer's state are zero (the padding between tensors), they stay zero.
        """

    def momentum(
        self,
        params: Array,
        grads: Array,
        velocity: Array,
        lr: float,
        scale: float,
        weight_decay: float,
        momentum: float,
    ) -> None:
        """g as for sgd; velocity = momentum velocity + g; params -= lr velocity. Polyak, "Some methods", 1964."""

    def adam(
        self,
        params: Array,
        grads: Array,
        first: Array,
        second: Array,
        lr: float,
        scale: float,
        weight_decay: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        update: int,
    ) -> None:
        """g as for sgd; first = beta1 first + (1 - beta1) g; second = beta2 second + (1 - beta2) g^2;

        params -= lr (first / (1 - beta1^t)) / (sqrt(second / (1 - beta2^t)) + epsilon), t = update, from 1.
        Kingma, Ba, "Adam: a method for stochastic optimization", 2015.
        """
