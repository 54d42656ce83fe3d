"""The account that a run gives of itself: its first lines, its summary, its last lines."""

import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ddpgd.config.schema import Config
from ddpgd.config.units import plural
from ddpgd.data.mnist import Dataset
from ddpgd.optim import schedules
from ddpgd.run.progress import decimals
from ddpgd.training.batch_split import Algebra
from ddpgd.training.counters import Record

VERSION = version("ddpgd")


def introduction(
    config: Config,
    world_size: int,
    num_nodes: int,
    transport: str,
    backend: str,
    sizes: tuple[int, ...],
    num_params: int,
    num_pieces: int,
    data: Dataset,
    folder: str,
    pace: tuple[int, int],
) -> list[str]:
    """What is about to run, on what. `pace`: steps done and steps in all."""
    assert config.global_batch is not None, "resolve() was not called"
    feedback = " with error feedback" if config.error_feedback else ""
    factor = schedules.scale(config.scale_lr, config.global_batch)
    scaled = f" x {factor:g} ({config.scale_lr})" if config.scale_lr else ""
    algebra = Algebra(config.global_batch, config.micro_batch, world_size)
    lines = [
        f"ddpgd {VERSION}: {plural(world_size, 'rank')} on {plural(num_nodes, 'machine')} over {transport}, backend {backend}",
        f"data: {data.source}: {len(data.train_labels):,} training and {len(data.test_labels):,} test samples",
        f"network {'-'.join(map(str, sizes))}: {num_params:,} params; {config.activation}, {config.loss}, {config.precision}",
        f"{algebra}; {config.optimizer}, lr {config.lr:g}{scaled}",
        f"exchange: {config.reduce}, {config.wire}{feedback}, at most {num_pieces} piece{'s' if num_pieces > 1 else ''} a rank",
        f"run folder: {folder}",
    ]
    idle = world_size - algebra.num_micro_batches
    if idle > 0:
        lines.append(
            f"{plural(idle, 'rank')} of {world_size} have nothing to compute: type --accumulate 1, or a larger --global-batch"
        )
    if pace[0]:
        lines.append(f"going on after step {pace[0]} of {pace[1]}")
    return lines


def summary(
    config: Config,
    figures: Record,
    world_size: int,
    num_nodes: int,
    transport: str,
    backend: str,
    device: str,
    wire: str,
    num_params: int,
    params_sha256: str,
) -> Record:
    """summary.json of a run that is complete."""
    return {
        "complete": True,
        "world_size": world_size,
        "num_nodes": num_nodes,
        "global_batch": config.global_batch,
        "micro_batch": config.micro_batch,
        **figures,
        "params_sha256": params_sha256,
        "num_params": num_params,
        "backend": backend,
        "transport": transport,
        "wire": wire,
        "reduce": config.reduce,
        "precision": config.precision,
        "seed": config.seed,
        "version": VERSION,
        "hardware": hardware(device),
    }


def conclusion(summary: Record, folder: str) -> list[str]:
    """What came out, what it cost, and what one rank would have taken: all ranks' computing and one update a step."""
    cost = f"{summary['train_s']:.1f} s of training on {plural(summary['world_size'], 'rank')}"
    num_cores = summary["num_nodes"] * (os.cpu_count() or 1)
    if summary["backend"] == "numpy" and summary["world_size"] > num_cores:
        cost += f", which share {plural(num_cores, 'core')}"
    elif summary["world_size"] > 1:
        cost += f" (one would have taken about {summary['one_rank_s_estimate']:.1f} s)"
    return [
        f"test accuracy {100 * summary['test_accuracy']:.2f} %, test loss {decimals(summary['test_loss_mean'])}, "
        f"params {summary['params_sha256'][:16]}; all of it in {folder}",
        f"{cost}: {summary['steps']} steps of {summary['step_us_median'] or 0:.0f} us, of which exchange "
        f"{summary['exchange_us_median'] or 0:.0f} us and {summary['wire_bytes_per_step'] / 1e6:.3g} MB sent by a rank",
    ]


def hardware(device: str) -> str:
    """Processor, system, versions and, where there is one, the GPU: what equal bits across machines depend on."""
    gpu = "" if device == "CPU" else f"{device}, "
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{gpu}{model}, {platform.system()} {platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
