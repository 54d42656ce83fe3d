"""Data-parallel training as one writes it by hand in NumPy and mpi4py: what `benchmarks.cpu.run` measures ddpgd against."""

import argparse
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from mpi4py import MPI
from threadpoolctl import threadpool_limits

from ddpgd.data import mnist
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD


def make_layers(sizes, vector):
    """Each layer's weight (K, N) and bias (N,), as views of the flat `vector`."""
    layers, start = [], 0
    for k, n in pairwise(sizes):
        layers.append((vector[start : start + k * n].reshape(k, n), vector[start + k * n : start + (k + 1) * n]))
        start += (k + 1) * n
    return layers


def forward(layers, x):
    """The network's inputs, each hidden layer's outputs, and the logits."""
    outputs = [x]
    for weight, bias in layers[:-1]:
        outputs.append(np.maximum(outputs[-1] @ weight + bias, 0))
    weight, bias = layers[-1]
    return [*outputs, outputs[-1] @ weight + bias]


def cross_entropy(logits, y):
    """The loss sum, and its gradient by the logits."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss_sum = -np.log(shares[rows, y]).sum()
    shares[rows, y] -= 1
    return float(loss_sum), shares


def gradient(layers, dlayers, x, y):
    """Fills `dlayers` with the gradient of the loss sum, which it returns."""
    outputs = forward(layers, x)
    loss_sum, dout = cross_entropy(outputs[-1], y)
    for number in reversed(range(len(layers))):
        np.matmul(outputs[number].T, dout, out=dlayers[number][0])
        np.sum(dout, axis=0, out=dlayers[number][1])
        if number > 0:
            dout = (dout @ layers[number][0].T) * (outputs[number] > 0)
    return loss_sum


def train(comm, images, labels, sizes, epochs, global_batch, lr):
    """The layers after `epochs`, and the mean loss over the last of them."""
    size = sum((k + 1) * n for k, n in pairwise(sizes))
    params, grads = np.zeros(size, np.float32), np.empty(size, np.float32)
    layers, dlayers = make_layers(sizes, params), make_layers(sizes, grads)
    random = np.random.default_rng(0)
    for weight, _ in layers:
        weight[...] = random.uniform(-1, 1, weight.shape) * math.sqrt(6 / len(weight))
    for _ in range(epochs):
        order, loss_sum = random.permutation(len(images)), 0.0
        for start in range(0, len(order), global_batch):
            batch = order[start : start + global_batch]
            own = batch[comm.rank :: comm.size]
            loss_sum += gradient(layers, dlayers, images[own], labels[own])
            comm.Allreduce(MPI.IN_PLACE, grads)
            params -= lr / len(batch) * grads
    return layers, comm.allreduce(loss_sum) / len(images)


def main():
    """Trains, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS)
    parser.add_argument("data", type=Path)
    parser.add_argument("sizes", help="as in 784,128,10")
    parser.add_argument("epochs", type=int)
    parser.add_argument("global_batch", type=int)
    asked = parser.parse_args()
    comm, data = MPI.COMM_WORLD, mnist.load(asked.data)
    sizes = [int(size) for size in asked.sizes.split(",")]
    images, tests = (
        (pixels / np.float32(255) - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_STD)
        for pixels in (data.train_images, data.test_images)
    )
    with threadpool_limits(1, user_api="blas"):
        layers, train_loss_mean = train(comm, images, data.train_labels, sizes, asked.epochs, asked.global_batch, 0.1)
        logits = forward(layers, tests)[-1]
    test_loss_mean = cross_entropy(logits, data.test_labels)[0] / len(tests)
    test_accuracy = float((logits.argmax(axis=1) == data.test_labels).mean())
    if comm.rank == 0:
        figures = {"train_loss_mean": train_loss_mean, "test_loss_mean": test_loss_mean, "test_accuracy": test_accuracy}
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
