"""The same training with PyTorch's DistributedDataParallel over gloo, which benchmarks compare ddpgd with.

As `benchmarks.cpu.run` starts it: plain SGD, float32 gradients every step. `--rule momentum` is ddpgd's default rule, and
`--hook` one of PyTorch's own ways to send less.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.utils import average_parameters
from torch.distributed.optim import PostLocalSGDOptimizer
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from ddpgd.comm.launcher import launch
from ddpgd.data import mnist
from ddpgd.kernels.device_ops import Array
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD

LR = 0.1


def make_network(sizes: Sequence[int]) -> Any:
    """Returns dense layers with ReLU between them, initialised as ddpgd does it."""
    layers: list[Any] = []
    for k, n in pairwise(sizes):
        dense = nn.Linear(k, n)
        nn.init.kaiming_uniform_(dense.weight, nonlinearity="relu")
        nn.init.zeros_(dense.bias)
        layers += [dense, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def tensors(pixels: Array, labels: Array) -> tuple[Any, Any]:
    """Returns all images normalised in float32, all labels as int64."""
    images = (torch.from_numpy(pixels.copy()).float() / 255 - PIXEL_MEAN) / PIXEL_STD
    return images, torch.from_numpy(labels.copy()).long()


def make_optimizer(params: Any, rule: str, total_steps: int) -> tuple[Any, Any]:
    """Returns the optimizer and its learning-rate schedule; None for a constant rate."""
    if rule == "plain":
        return torch.optim.SGD(params, lr=LR), None
    optimizer = torch.optim.SGD(params, lr=LR, momentum=0.9, weight_decay=0.0005)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)


def hooked(model: Any, optimizer: Any, asked: argparse.Namespace) -> Any:
    """Registers the hook `asked.hook` from step `asked.start` on; returns the optimizer to step with."""
    if asked.hook == "fp16":
        model.register_comm_hook(None, fp16_compress_hook)
    elif asked.hook == "powersgd":
        state = PowerSGDState(None, matrix_approximation_rank=asked.rank, start_powerSGD_iter=asked.start)
        model.register_comm_hook(state, powerSGD_hook)
    elif asked.hook == "post-local":
        state = PostLocalSGDState(None, None, asked.start, post_local_gradient_allreduce=False)
        model.register_comm_hook(state, post_localSGD_hook)
        return PostLocalSGDOptimizer(optimizer, PeriodicModelAverager(asked.period, warmup_steps=asked.start))
    return optimizer


def are_equal(asked: argparse.Namespace, steps: int) -> bool:
    """Tells whether all ranks hold the same params after so many steps."""
    local_steps = steps - asked.start
    return bool(asked.hook != "post-local" or local_steps <= 0 or (local_steps - 1) % asked.period == 0)


def train(
    network: Any, images: Any, labels: Any, tests: Any, test_labels: Any, asked: argparse.Namespace
) -> tuple[float, list[float], list[tuple[int, float]]]:
    """Trains; returns the mean loss over the last epoch, when each step ended (s), and evaluations, (step, accuracy)."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    # PowerSGD's hook sends from callbacks, whose order over several buckets ranks do not share: gloo then aborts. With a
    # size of their own given, buckets take 25 MB from the first on, and one holds all.
    bucket_mb = 25 if asked.hook == "powersgd" else None
    model = DistributedDataParallel(network, gradient_as_bucket_view=True, bucket_cap_mb=bucket_mb)
    steps_per_epoch = math.ceil(len(images) / asked.global_batch)
    optimizer, schedule = make_optimizer(model.parameters(), asked.rule, asked.epochs * steps_per_epoch)
    optimizer = hooked(model, optimizer, asked)
    random, ends, evaluations = torch.Generator().manual_seed(asked.seed), [], []
    is_due = False
    for _ in range(asked.epochs):
        order, loss_sum = torch.randperm(len(images), generator=random), torch.zeros(())
        for step, start in enumerate(range(0, len(order), asked.global_batch)):
            if step >= asked.steps:
                break
            own = order[start : start + asked.global_batch][rank::world_size]
            optimizer.zero_grad()
            loss = cross_entropy(model(images[own]), labels[own])
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step()
            loss_sum += loss.detach() * len(own)
            ends.append(time.perf_counter())
            is_due |= len(ends) % asked.evaluate_every == 0
            if is_due and are_equal(asked, len(ends)):
                is_due = False
                if rank == 0:
                    evaluations.append((len(ends), evaluate(network, tests, test_labels)[1]))
    if not are_equal(asked, len(ends)):
        average_parameters(network.parameters(), dist.group.WORLD)
    dist.all_reduce(loss_sum)
    return loss_sum.item() / len(images), ends, evaluations


def evaluate(network: Any, tests: Any, test_labels: Any) -> tuple[float, float]:
    """Returns mean loss and accuracy."""
    with torch.no_grad():
        logits = network(tests)
    right = (logits.argmax(dim=1) == test_labels).float().mean().item()
    return cross_entropy(logits, test_labels).item(), right


def ranks(environment: Mapping[str, str]) -> tuple[int, int]:
    """Returns rank and world size: those of PyTorch's own variables, or of the launcher."""
    if "RANK" in environment:
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    launched = launch(environment)
    return launched.rank, launched.world_size


def main() -> None:
    """Trains, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS)
    parser.add_argument("data", type=Path)
    parser.add_argument("sizes", help="as in 784,128,10")
    parser.add_argument("epochs", type=int)
    parser.add_argument("global_batch", type=int)
    parser.add_argument("meeting_point", type=Path, help="a file that does not exist yet")
    parser.add_argument("--steps", type=int, default=math.inf, help="of an epoch, at most")
    parser.add_argument("--rule", choices=("plain", "momentum"), default="plain", help="momentum: ddpgd's default rule")
    parser.add_argument("--hook", choices=("none", "fp16", "powersgd", "post-local"), default="none")
    parser.add_argument("--start", type=int, default=10, help="first step of --hook powersgd and post-local")
    parser.add_argument("--rank", type=int, default=2, help="of --hook powersgd")
    parser.add_argument("--period", type=int, default=8, help="steps of --hook post-local between averages")
    parser.add_argument("--evaluate-every", type=int, default=math.inf, help="steps between evaluations")
    parser.add_argument("--seed", type=int, default=0, help="of first weights and data order")
    asked = parser.parse_args()
    (rank, world_size), data = ranks(os.environ), mnist.load(asked.data)
    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)
    place = f"file://{asked.meeting_point.resolve()}"
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=world_size)
    network = make_network([int(size) for size in asked.sizes.split(",")])
    images, labels = tensors(data.train_images, data.train_labels)
    tests, test_labels = tensors(data.test_images, data.test_labels)
    train_loss_mean, ends, evaluations = train(network, images, labels, tests, test_labels, asked)
    half = len(ends) // 2
    if rank == 0:
        test_loss_mean, test_accuracy = evaluate(network, tests, test_labels)
        figures = {
            "train_loss_mean": train_loss_mean,
            "step_s": (ends[-1] - ends[half - 1]) / (len(ends) - half),
            "test_loss_mean": test_loss_mean,
            "test_accuracy": test_accuracy,
            "evaluations": evaluations,
        }
        print(json.dumps(figures))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
