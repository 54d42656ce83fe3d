"""The same training with PyTorch's DistributedDataParallel over gloo: what `bench_cpu.py` measures ddpgd against."""

import argparse
import json
import math
import os
import time
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from ddpgd.comm.world import launch
from ddpgd.data import mnist
from ddpgd.model import PIXEL_MEAN, PIXEL_STD


def make_network(sizes):
    """Dense layers with ReLU between them, initialised as ddpgd does it."""
    layers = []
    for k, n in pairwise(sizes):
        dense = nn.Linear(k, n)
        nn.init.kaiming_uniform_(dense.weight, nonlinearity="relu")
        nn.init.zeros_(dense.bias)
        layers += [dense, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def tensors(pixels, labels):
    """All images normalised in float32, all labels as int64."""
    images = (torch.from_numpy(pixels.copy()).float() / 255 - PIXEL_MEAN) / PIXEL_STD
    return images, torch.from_numpy(labels.copy()).long()


def train(network, images, labels, epochs, global_batch, lr, most_steps=math.inf, half=False):
    """Trains `network`, in an epoch `most_steps` at most; the mean loss over the last epoch, and when each step ended (s).

    `half`: gradients travel as float16, by PyTorch's own hook.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(network, gradient_as_bucket_view=True)
    if half:
        model.register_comm_hook(None, fp16_compress_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    random, ends = torch.Generator().manual_seed(0), []
    for _ in range(epochs):
        order, loss_sum = torch.randperm(len(images), generator=random), torch.zeros(())
        for step, start in enumerate(range(0, len(order), global_batch)):
            if step >= most_steps:
                break
            own = order[start : start + global_batch][rank::world_size]
            optimizer.zero_grad()
            loss = cross_entropy(model(images[own]), labels[own])
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(own)
            ends.append(time.perf_counter())
    dist.all_reduce(loss_sum)
    return loss_sum.item() / len(images), ends


def ranks(environment):
    """Rank and world size: those of PyTorch's own variables, or of the launcher."""
    if "RANK" in environment:
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    launched = launch(environment)
    return launched.rank, launched.world_size


def main():
    """Trains, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS)
    parser.add_argument("data", type=Path)
    parser.add_argument("sizes", help="as in 784,128,10")
    parser.add_argument("epochs", type=int)
    parser.add_argument("global_batch", type=int)
    parser.add_argument("meeting_point", type=Path, help="a file that does not exist yet")
    parser.add_argument("--steps", type=int, default=math.inf, help="of an epoch, at most")
    parser.add_argument("--half", action="store_true", help="gradients travel as float16")
    asked = parser.parse_args()
    (rank, world_size), data = ranks(os.environ), mnist.load(asked.data)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    place = f"file://{asked.meeting_point.resolve()}"
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=world_size)
    network = make_network([int(size) for size in asked.sizes.split(",")])
    images, labels = tensors(data.train_images, data.train_labels)
    train_loss_mean, ends = train(
        network, images, labels, asked.epochs, asked.global_batch, 0.1, asked.steps, asked.half
    )
    half = len(ends) // 2
    tests, test_labels = tensors(data.test_images, data.test_labels)
    with torch.no_grad():
        logits = network(tests)
    if rank == 0:
        figures = {
            "train_loss_mean": train_loss_mean,
            "step_s": (ends[-1] - ends[half - 1]) / (len(ends) - half),
            "test_loss_mean": cross_entropy(logits, test_labels).item(),
            "test_accuracy": (logits.argmax(dim=1) == test_labels).float().mean().item(),
        }
        print(json.dumps(figures))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
