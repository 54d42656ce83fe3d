"""JAX as a contestant: an epoch is one `lax.scan` under `jit`, with params and velocity donated.

float32 and tf32 by the precision of products; 16 bits by casting float32 params where they are used. The order of an
epoch is drawn on the device. Not in its step: the norm of the gradient and the look whether it is finite.
"""

import functools
import os
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.cases import LOSS_SCALE, LR, MOMENTUM, Case

Array = NDArray[Any]
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081  # those of ddpgd.model, which JAX's environment need not have
HALVES = {"float16": jnp.float16, "bfloat16": jnp.bfloat16}
MATRIX_PRECISION = {"float32": "highest", "tf32": "tensorfloat32"}


def facts() -> dict[str, Any]:
    return {"device": jax.devices()[0].device_kind, "JAX": jax.__version__}


class Jax:
    """A whole epoch at a time."""

    def __init__(self, case: Case, images: Array, labels: Array) -> None:
        rng = np.random.default_rng(0)
        bounds = [(6 / k) ** 0.5 for k in case.sizes[:-1]]
        shapes = zip(bounds, case.sizes, case.sizes[1:], strict=False)
        weights = [(rng.uniform(-b, b, (k, n)).astype(np.float32), np.zeros(n, np.float32)) for b, k, n in shapes]
        self._params = jax.device_put(weights)
        self._velocity = jax.tree.map(jnp.zeros_like, self._params)
        self._samples = jax.device_put((images, labels.astype(np.int32)))
        self._key = jax.random.key(0)
        self.steps_at_once = len(labels) // case.rows
        self._epoch = jax.jit(functools.partial(_epoch, case), donate_argnums=(0, 1))
        self.run(self.steps_at_once)
        self.first_loss = float(self._losses[0])

    def run(self, steps: int) -> None:
        for _ in range(steps // self.steps_at_once):
            self._key, key = jax.random.split(self._key)
            self._params, self._velocity, self._losses = self._epoch(self._params, self._velocity, key, self._samples)
        self._losses.block_until_ready()

    def loss(self) -> float:
        return float(self._losses[-1])


def _epoch(case: Case, params: Any, velocity: Any, key: Any, samples: Any) -> tuple[Any, Any, Any]:
    """Returns params and velocity after all steps of an epoch, and the loss of each step."""
    images, labels = samples
    scale = LOSS_SCALE if case.precision == "float16" else 1.0
    dtype = HALVES.get(case.precision, jnp.float32)

    def scaled_loss(params: Any, indices: Any) -> Any:
        x = (images[indices].astype(jnp.float32) / (255 * PIXEL_STD) - PIXEL_MEAN / PIXEL_STD).astype(dtype)
        *hidden, last = [(weight.astype(dtype), bias) for weight, bias in params]
        for weight, bias in hidden:
            sums = jnp.matmul(x, weight, preferred_element_type=jnp.float32)
            x = jax.nn.relu(sums + bias).astype(dtype)
        logits = jnp.matmul(x, last[0], preferred_element_type=jnp.float32) + last[1]
        log_softmax = jax.nn.log_softmax(logits)
        return -scale * jnp.take_along_axis(log_softmax, labels[indices][:, None], axis=1).mean()

    def step(carry: Any, indices: Any) -> Any:
        params, velocity = carry
        loss, grads = jax.value_and_grad(scaled_loss)(params, indices)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, grads)
        params = jax.tree.map(lambda p, v: p - LR / scale * v, params, velocity)
        return (params, velocity), loss / scale

    with jax.default_matmul_precision(MATRIX_PRECISION.get(case.precision, "default")):
        order = jax.random.permutation(key, len(labels)).reshape(-1, case.rows)
        (params, velocity), losses = jax.lax.scan(step, (params, velocity), order)
    return params, velocity, losses


def make(key: str, case: Case, images: Array, labels: Array) -> Jax:  # noqa: ARG001
    return Jax(case, images, labels)
