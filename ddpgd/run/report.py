"""The report of a run: its first lines, its summary, its last lines."""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.grid import Shape
from ddpgd.config.schema import Config
from ddpgd.config.units import plural
from ddpgd.data.mnist import Dataset
from ddpgd.run.diagnosis import guessing_loss
from ddpgd.run.progress import decimals
from ddpgd.run.summary import NO_CLIENTS
from ddpgd.run.work import Work
from ddpgd.training.counters import Record

VERSION = version("ddpgd")

_FAR_ABOVE = 2.0
"""Multiple of the loss of guessing from which on a run counts as diverged."""

DIVERGED = "the run diverged"
"""The beginning of the warning of a run that reached its end with such a loss."""

_AT_CHANCE = 0.01
"""Accuracy above that of one answer for all samples up to which a network counts as guessing."""


def introduction(
    config: Config,
    shape: Shape,
    num_nodes: int,
    transport: str,
    backend: str,
    sizes: tuple[int, ...],
    num_params: int,
    num_pieces: int,
    data: Dataset,
    folder: str,
    work: Work,
    pace: tuple[int, int],
    form: str = "",
    apart: Sequence[int] = (),
) -> list[str]:
    """Returns the first lines of a run.

    `work`: the words on a step. `form`: what there is to say of that of the exchange. `pace`: steps done and in all.
    `apart`: ranks on several machines that share layers.
    """
    feedback = " with error feedback" if config.error_feedback else ""
    ranks = plural(shape.data * shape.replica, "rank")
    grid = f", {shape}," * (shape.replica > 1)
    lines = [
        f"ddpgd {VERSION}: {ranks}{grid} on {plural(num_nodes, 'machine')} over {transport}, backend {backend}",
        f"data: {data.source}: {_counts(data)} samples",
        f"network {'-'.join(map(str, sizes))}: {num_params:,} params; {config.activation}, {config.loss}, {config.precision}",
        work.text,
        f"exchange: {config.reduce}, {config.wire}{feedback}{form}, at most {plural(num_pieces, 'piece')} a rank",
        f"run folder: {folder}",
    ]
    lines += [f"WARNING: {text}" for text in (*work.doubts, *_doubts(config, apart, backend))]
    if pace[0]:
        lines.append(f"resuming after step {pace[0]} of {pace[1]}")
    return lines


def _counts(data: Dataset) -> str:
    """Returns the numbers of samples in words."""
    held_out = f", {len(data.validation_labels):,} validation" * (len(data.validation_labels) > 0)
    return f"{len(data.train_labels):,} training{held_out} and {len(data.test_labels):,} test"


def _doubts(config: Config, apart: Sequence[int], backend: str) -> list[str]:
    """Returns a sentence for each thing about a run's start that its user hardly wants."""
    found = []
    if apart:
        found.append(
            f"ranks {', '.join(map(str, apart))}, which share layers, are on several machines: start ranks node by "
            "node, or type a smaller --tensor"
        )
    of_gpus = {f"--replay {config.replay}": config.replay != "graph", "--share-gpu": config.share_gpu}
    if backend.startswith("numpy"):
        found += [f"{flag} has no effect: it is for GPUs" for flag, is_given in of_gpus.items() if is_given]
    return found


def summary(
    config: Config,
    figures: Record,
    world_size: int,
    lost_ranks: list[int],
    num_nodes: int,
    transport: str,
    transport_choice: str,
    exchange_choice: str,
    num_buckets: int,
    backend: str,
    device: str,
    wire: str,
    global_batch: int,
    num_params: int,
    params_sha256: str,
    warnings: list[str],
) -> Record:
    """Returns the summary of a complete run, as in summary.json."""
    return {
        "complete": True,
        "warnings": warnings,
        "world_size": world_size,
        "lost_ranks": lost_ranks,
        "num_nodes": num_nodes,
        "shards": config.shards,
        "tensor": config.tensor,
        "pipeline": config.pipeline,
        "global_batch": global_batch,
        "micro_batch": config.micro_batch,
        **NO_CLIENTS,
        **figures,
        "params_sha256": params_sha256,
        "num_params": num_params,
        "backend": backend,
        "transport": transport,
        "transport_choice": transport_choice,
        "exchange_choice": exchange_choice,
        "num_buckets": num_buckets,
        "wire": wire,
        "reduce": config.reduce,
        "precision": config.precision,
        "seed": config.seed,
        "version": VERSION,
        "hardware": hardware(device),
    }


def warnings(config: Config, figures: Record, last_loss: float | None, test_labels: NDArray[np.uint8]) -> list[str]:
    """Returns a sentence for each sign that a run did not learn: it diverged, guesses, or skipped updates.

    Args:
        config: The run. With float16, skipped updates are part of adapting the loss scale.
        figures: The summary's figures.
        last_loss: That of the last evaluation; None: it is not finite.
        test_labels: uint8 (num_test_samples,).
    """
    found = []
    accuracy, kind = figures["test_accuracy"], "test" if figures["best_step"] is None else "validation"
    guessing = guessing_loss(config)
    if last_loss is None or last_loss > _FAR_ABOVE * guessing:
        found.append(
            f"{DIVERGED}: {kind} loss {decimals(last_loss)}, where guessing gives {guessing:.2f}; "
            "lower --lr, or set --warmup or --clip-norm"
        )
    elif figures["epochs"] >= 1 and accuracy <= np.bincount(test_labels).max() / len(test_labels) + _AT_CHANCE:
        found.append(
            f"the network guesses: test accuracy {100 * accuracy:.1f} % is that of one answer for all samples; "
            "lower --lr, or raise it if the loss has hardly changed"
        )
    if figures["skipped_updates"] and config.precision != "float16":
        found.append(f"{plural(figures['skipped_updates'], 'update')} skipped, whose gradient had NaN or infinity")
    return found


def conclusion(summary: Record, folder: str) -> list[str]:
    """Returns the last lines of a run: result, cost, and the estimated time of one rank (all computing, one update a step)."""
    cost = f"{summary['train_s']:.1f} s of training on {plural(summary['world_size'], 'rank')}"
    since = f"rank {summary['lost_ranks'][-1]} died" if summary["lost_ranks"] else "the resume"
    if summary["train_s_since_start"] < summary["train_s"]:
        cost += f", {summary['train_s_since_start']:.1f} s of it since {since}"
    num_cores = summary["num_nodes"] * (os.cpu_count() or 1)
    if summary["backend"] == "numpy" and summary["world_size"] > num_cores:
        cost += f", which share {plural(num_cores, 'core')}"
    elif summary["world_size"] > 1:
        cost += f" (one would have taken about {summary['one_rank_s_estimate']:.1f} s)"
    lines = [
        *([f"ended after step {summary['steps']}: {summary['ended']}"] if summary["ended"] else []),
        *_best(summary),
        f"test accuracy {100 * summary['test_accuracy']:.2f} %, "
        f"test loss {decimals(summary['test_loss_mean'])}, "
        f"params {summary['params_sha256'][:16]}; all of it in {folder}",
        f"{cost}: {plural(summary['steps'], 'step')} of {summary['step_us_median'] or 0:.0f} us, of which exchange "
        f"{summary['exchange_us_median'] or 0:.0f} us and {summary['wire_bytes_per_step'] / 1e6:.3g} MB sent by a rank",
        *_critical_batch(summary),
        *(f"WARNING: {warning}" for warning in summary["warnings"]),
    ]
    if masked := summary.get("masked_change"):
        own, sent = (" ".join(f"{word:08x}" for word in masked[name]) for name in ("change", "masked"))
        lines.append(f"a client's change begins {own}; the server got {sent}")
    if late := summary["late_rank"]:
        lines.append(
            f"the other ranks waited for rank {late['rank']} {late['share']:.0%} of the time; it had a core "
            f"{late['run_share']:.0%} of the time, others up to {late['run_share_most']:.0%}"
        )
    return lines


def _best(summary: Record) -> list[str]:
    """Returns a line on the weights whose test figures follow, where those are not simply the last."""
    if summary["best_step"] is None:
        return []
    return [
        f"best after step {summary['best_step']}, with validation accuracy {100 * summary['validation_accuracy']:.2f} %: "
        "checkpoints/best has these weights, and the test figures are theirs"
    ]


def _critical_batch(summary: Record) -> list[str]:
    """Returns a line that explains the gradient noise scale, with two digits; none where it cannot be told."""
    noise_scale = summary["noise_scale"]
    if noise_scale is None or noise_scale < 1:
        return []
    return [
        f"critical batch about {int(float(f'{noise_scale:.1e}')):,}: larger global batches than that save few steps"
    ]


def hardware(device: str) -> str:
    """Returns GPU (if any), processor, system and versions: equal bits across machines depend on them."""
    gpu = "" if device == "CPU" else f"{device}, "
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{gpu}{model}, {platform.system()} {platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
