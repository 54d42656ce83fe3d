"""The options of where a run is computed, and of how ranks exchange what they computed."""

import math
from dataclasses import dataclass
from typing import Literal

from ddpgd.comm.grid import PIPELINE_SCHEDULES
from ddpgd.comm.transports.capabilities import TRANSPORTS
from ddpgd.comm.wires import WIRES
from ddpgd.config.option import fixed_option, option
from ddpgd.kernels.device_ops import REPLAYS

_HUGE = 2**53


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Ranks, devices and the exchange, each a flag of `ddpgd train`."""

    backend: Literal["auto", "numpy", "cupy"] = option(
        "auto", "machine", "compute backend: cupy (GPU) or numpy (CPU)", choices=("auto", "numpy", "cupy")
    )
    precision: Literal["float32", "tf32", "float16", "bfloat16"] = fixed_option(
        "float32",
        "machine",
        "input type of matrix products, whose sums are float32; all but float32 need a GPU",
        choices=("float32", "tf32", "float16", "bfloat16"),
    )
    replay: Literal["graph", "persistent"] = option(
        "graph",
        "machine",
        "how a GPU runs steps that need no host work: as CUDA graphs, or, those of a small network on one rank, in one kernel",
        choices=REPLAYS,
    )
    share_gpu: bool = option(False, "machine", "let several ranks of a node share one GPU", bool)
    transport: Literal["auto", "alone", "threads", "mpi-host", "mpi-cuda", "nccl"] = option(
        "auto",
        "machine",
        "how ranks communicate; auto: by NCCL if each has a GPU and it works, else host memory",
        choices=("auto", *TRANSPORTS),
    )
    tensor: int = option(
        1, "machine", "ranks that share each layer, at most --shards; the others compute other samples", int
    )
    pipeline: int = option(1, "machine", "ranks that each have some of the layers, and follow each other", int)
    pipeline_schedule: Literal["1f1b", "gpipe"] = option(
        "1f1b",
        "machine",
        "with --pipeline: how many micro-batches a stage holds; 1f1b: one for each stage to come; gpipe: all of a step",
        choices=PIPELINE_SCHEDULES,
    )
    stages: tuple[int, ...] | None = option(
        None, "machine", "with --pipeline: layers of each stage, as in 2,1 (default: balanced by their cost)", tuple
    )
    ranks: int | None = option(None, "machine", "number of ranks of --transport threads", int)

    wire: str = fixed_option(
        "float32",
        "exchange",
        "form of gradients on the wire: float32; 16 or 8 bits, scaled by block; the largest elements; or low rank",
        choices=tuple(WIRES),
    )
    topk_density: float = fixed_option(0.01, "exchange", "fraction of the elements that --wire topk sends", float)
    topk_warmup: int = fixed_option(0, "exchange", "epochs in which --wire topk sends more, fewer each epoch", int)
    topk_masking: bool = fixed_option(
        False, "exchange", "with --wire topk: clear the momentum of elements that are sent", bool
    )
    powersgd_rank: int = fixed_option(2, "exchange", "rank of the approximation of --wire powersgd", int)
    error_feedback: bool = fixed_option(False, "exchange", "add each step's encoding error to the next gradient", bool)
    reduce: Literal["ordered", "fast"] = fixed_option(
        "ordered",
        "exchange",
        "order of the sum: canonical, with the same bits on any number of ranks, or the transport's own",
        choices=("ordered", "fast"),
    )
    exchange: Literal["auto", "flat", "two-level"] = option(
        "auto",
        "exchange",
        "form of the ordered sum: between all ranks, or inside nodes first; auto: what is faster, for --wire float32",
        choices=("auto", "flat", "two-level"),
    )
    shard_optimizer: Literal["auto", "on", "off"] = option(
        "auto",
        "exchange",
        "let each rank hold and update its part of the optimizer, with the same bits; auto: on CPUs, where it is faster",
        choices=("auto", "on", "off"),
        bare="on",
    )
    overlap: Literal["auto", "on", "off"] = option(
        "auto",
        "exchange",
        "send the last layers' gradients while others are computed, with the same bits, where each rank has a GPU and NCCL; "
        "auto: in as many buckets as the cost model finds fastest",
        choices=("auto", "on", "off"),
        bare="on",
    )
    sync: Literal["every-step", "local", "federated"] = fixed_option(
        "every-step",
        "exchange",
        "combine gradients at every step, changes of the params after local steps, or those of clients in rounds",
        choices=("every-step", "local", "federated"),
    )
    local_steps: int = fixed_option(8, "exchange", "with --sync local: steps between two combinations", int)
    local_after: int = fixed_option(
        0, "exchange", "with --sync local: steps of gradient exchange before it begins", int
    )
    outer_lr: float = fixed_option(
        1.0, "exchange", "with --sync local or federated: learning rate of the mean change", float
    )
    outer_momentum: float = fixed_option(
        0.0, "exchange", "with --sync local or federated: momentum of the mean change; Nesterov's with local", float
    )


RANGES: dict[str, tuple[float, float, str]] = {
    "tensor": (1, 1024, "1 to 1024"),
    "pipeline": (1, 1024, "1 to 1024"),
    "topk_density": (1e-6, 1, "above 0 and at most 1, as in 0.01"),
    "topk_warmup": (0, _HUGE, "at least 0"),
    "powersgd_rank": (1, 32, "1 to 32"),
    "local_steps": (1, _HUGE, "at least 1"),
    "local_after": (0, _HUGE, "at least 0"),
    "outer_lr": (1e-300, math.inf, "above 0"),
    "outer_momentum": (0, 1 - 1e-9, "at least 0 and below 1"),
    "ranks": (1, 1024, "1 to 1024"),
}
"""The lowest and highest value of numbers, and both in words."""
