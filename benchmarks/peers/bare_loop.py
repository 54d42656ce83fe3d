"""Data-parallel training as one writes it by hand in NumPy and mpi4py: the loop that benchmarks compare ddpgd with.

The update is that of `ddpgd train --optimizer momentum`; with --momentum 0 and --weight-decay 0, plain SGD.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from mpi4py import MPI
from threadpoolctl import threadpool_limits

from ddpgd.data import mnist
from ddpgd.kernels.device_ops import Array
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD

Layers = list[tuple[Array, Array]]

LR = 0.1


def make_layers(sizes: Sequence[int], vector: Array) -> Layers:
    """Returns each layer's weight (K, N) and bias (N,), as views of the flat `vector`."""
    layers, start = [], 0
    for k, n in pairwise(sizes):
        layers.append((vector[start : start + k * n].reshape(k, n), vector[start + k * n : start + (k + 1) * n]))
        start += (k + 1) * n
    return layers


def forward(layers: Layers, x: Array) -> list[Array]:
    """Returns the network's inputs, each hidden layer's outputs, and the logits."""
    outputs = [x]
    for weight, bias in layers[:-1]:
        outputs.append(np.maximum(outputs[-1] @ weight + bias, 0))
    weight, bias = layers[-1]
    return [*outputs, outputs[-1] @ weight + bias]


def cross_entropy(logits: Array, y: Array) -> tuple[float, Array]:
    """Returns the loss sum, and its gradient by the logits."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss_sum = -np.log(shares[rows, y]).sum()
    shares[rows, y] -= 1
    return float(loss_sum), shares


def gradient(layers: Layers, dlayers: Layers, x: Array, y: Array) -> float:
    """Fills `dlayers` with the gradient of the loss sum, which it returns."""
    outputs = forward(layers, x)
    loss_sum, dout = cross_entropy(outputs[-1], y)
    for number in reversed(range(len(layers))):
        np.matmul(outputs[number].T, dout, out=dlayers[number][0])
        np.sum(dout, axis=0, out=dlayers[number][1])
        if number > 0:
            dout = (dout @ layers[number][0].T) * (outputs[number] > 0)
    return loss_sum


class Update:
    """Momentum with an L2 penalty, in place: g = mean gradient + decay * params; v = momentum * v + g; params -= lr * v."""

    def __init__(self, params: Array, momentum: float, weight_decay: float) -> None:
        self._params = params
        self._velocity = np.zeros_like(params)
        self._momentum = momentum
        self._weight_decay = weight_decay

    def __call__(self, grads: Array, num_samples: int) -> None:
        if not self._momentum and not self._weight_decay:
            self._params -= LR / num_samples * grads
            return
        grads *= 1 / num_samples
        grads += self._weight_decay * self._params
        self._velocity *= self._momentum
        self._velocity += grads
        self._params -= LR * self._velocity


def train(comm: MPI.Comm, images: Array, labels: Array, asked: argparse.Namespace) -> tuple[Layers, float, list[float]]:
    """Returns the layers, the mean loss over the last epoch, and the seconds of every step."""
    sizes = [int(size) for size in asked.sizes.split(",")]
    size = sum((k + 1) * n for k, n in pairwise(sizes))
    params, grads = np.zeros(size, np.float32), np.empty(size, np.float32)
    layers, dlayers = make_layers(sizes, params), make_layers(sizes, grads)
    update = Update(params, asked.momentum, asked.weight_decay)
    random = np.random.default_rng(0)
    for weight, _ in layers:
        weight[...] = random.uniform(-1, 1, weight.shape) * math.sqrt(6 / len(weight))
    steps_s, loss_sum = [], 0.0
    for _ in range(asked.epochs):
        order, loss_sum = random.permutation(len(images)), 0.0
        for start in range(0, len(order), asked.global_batch):
            started = time.perf_counter()
            batch = order[start : start + asked.global_batch]
            own = batch[comm.rank :: comm.size]
            loss_sum += gradient(layers, dlayers, images[own], labels[own])
            comm.Allreduce(MPI.IN_PLACE, grads)
            update(grads, len(batch))
            steps_s.append(time.perf_counter() - started)
    return layers, comm.allreduce(loss_sum) / len(images), steps_s


def main() -> None:
    """Trains, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS)
    parser.add_argument("data", type=Path)
    parser.add_argument("sizes", help="as in 784,128,10")
    parser.add_argument("epochs", type=int)
    parser.add_argument("global_batch", type=int)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    asked = parser.parse_args()
    comm, data = MPI.COMM_WORLD, mnist.load(asked.data)
    images, tests = (
        (pixels / np.float32(255) - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_STD)
        for pixels in (data.train_images, data.test_images)
    )
    with threadpool_limits(1, user_api="blas"):
        layers, train_loss_mean, steps_s = train(comm, images, data.train_labels, asked)
        logits = forward(layers, tests)[-1]
    figures = {
        "train_loss_mean": train_loss_mean,
        "step_us_median": 1e6 * statistics.median(steps_s),
        "test_loss_mean": cross_entropy(logits, data.test_labels)[0] / len(tests),
        "test_accuracy": float((logits.argmax(axis=1) == data.test_labels).mean()),
    }
    if comm.rank == 0:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
