"""The workloads and competitors of `benchmarks.cpu.run`, the command of each, and one run of one of them."""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu.records import Limit, Measured
from benchmarks.lib.common import LR, NUM_RANKS, PEERS, ROOT
from ddpgd.config.schema import Config
from ddpgd.run.summary import read_summary
from ddpgd.scaling.processes import run


@dataclass(frozen=True)
class Workload:
    """A training task: ddpgd computes in micro-batches, the others a rank's rows in one piece.

    `more_epochs`: of the longer of two runs. `pair_steps`: of a run in a comparison of pairs.
    """

    name: str
    sizes: tuple[int, ...]
    global_batch: int
    micro_batch: int
    more_epochs: int
    pair_steps: int
    lr: float = LR

    @property
    def rows(self) -> int:
        """Samples of a rank in a step."""
        return self.global_batch // NUM_RANKS

    @property
    def grads_bytes(self) -> int:
        return 4 * sum((k + 1) * n for k, n in zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def config(self) -> Config:
        """Configuration of one rank's part of a step."""
        return Config(
            hidden=self.sizes[1:-1],
            global_batch=self.rows,
            micro_batch=self.micro_batch,
            optimizer="sgd",
            weight_decay=0.0,
            schedule="constant",
        )

    def __str__(self) -> str:
        network = "-".join(map(str, self.sizes))
        micro = f" (ours in micro-batches of {self.micro_batch})" if self.micro_batch < self.rows else ""
        return f"{self.name}: {network}, global batch {self.global_batch}, {self.rows} rows a rank in one piece{micro}"


WORKLOADS = (
    Workload("small", (784, 128, 10), 256, 128, 50, 6000),
    Workload("small-micro", (784, 128, 10), 512, 64, 50, 3000),
    Workload("large", (784, 512, 512, 10), 256, 128, 8, 800),
    Workload("large-micro", (784, 512, 512, 10), 512, 64, 8, 400),
)
HUGE = Workload("huge", (784, 2500, 2000, 1500, 1000, 500, 10), 128, 64, 1, 24, lr=0.01)
ALL_WORKLOADS = (*WORKLOADS, HUGE)
NAMES = {
    "fast": "ddpgd --reduce fast",
    "bare": "NumPy + mpi4py by hand",
    "ordered": "ddpgd --reduce ordered",
    "ddp": "PyTorch DDP, gloo",
}


SLOWER = {"ddp": 0.4}
"""Competitors that train fewer epochs more in their longer run, since those take long enough for the clock."""


def command(competitor: str, work: Workload, epochs: int, python: str, data: str, folder: str) -> list[str]:
    """Returns the command that runs under the outer clock; `folder` does not exist before."""
    start = ["mpirun", "-n", str(NUM_RANKS), python]
    sizes = ",".join(map(str, work.sizes))
    if competitor == "bare":
        return [*start, str(PEERS / "bare_loop.py"), data, sizes, str(epochs), str(work.global_batch)]
    if competitor == "ddp":
        return [
            *start,
            str(PEERS / "ddp_loop.py"),
            data,
            sizes,
            str(epochs),
            str(work.global_batch),
            folder,
        ]
    flags = (
        f"--hidden {','.join(map(str, work.sizes[1:-1]))} --global-batch {work.global_batch} "
        f"--micro-batch {work.micro_batch} --optimizer sgd --lr {LR} --weight-decay 0 --schedule constant "
        f"--backend numpy --reduce {competitor} --epochs {epochs} --evaluate-every 1000000 --log-every 1000000 --quiet"
    )
    return [*start, "-m", "ddpgd", "train", *flags.split(), "--data", data, "--run-dir", folder]


def measure(competitor: str, work: Workload, epochs: int, data: str) -> Measured:
    """Makes one run; returns its epochs, wall time and figures."""
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        wall_s, printed = run(command(competitor, work, epochs, sys.executable, data, str(folder)))
        figures = dict(read_summary(folder)) if folder.is_dir() else json.loads(printed)
    return {"competitor": competitor, "epochs": epochs, "wall_s": wall_s, "figures": figures}


def limit(library: str, work: Workload, rows: int) -> Limit:
    """Returns time and FLOP of a micro-batch's matrix products alone, on one thread of each rank at once."""
    sizes = ",".join(map(str, work.sizes))
    script = str(ROOT / "benchmarks" / "cpu" / "gemm_limit.py")
    _, printed = run(["mpirun", "-n", str(NUM_RANKS), sys.executable, script, library, sizes, str(rows)])
    found = json.loads(printed)
    return {"library": library, "rows": rows, "seconds": found["seconds"], "flop": found["flop"]}
