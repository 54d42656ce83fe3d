"""Cases of `benchmarks.slow_links.run`: networks, links, and contestants with their flags.

A contestant is a line of CONTESTANTS: change one, or add one; what must be timed for it follows from its flags.
"""

from dataclasses import dataclass

from benchmarks.lib.common import LAB_LINKS, NUM_RANKS, PEERS, SHARED_MEMORY

NETWORKS = {"784-128-10": (784, 128, 10), "784-512-512-10": (784, 512, 512, 10)}
LINKS = (SHARED_MEMORY, *LAB_LINKS)
TARGETS = (0.97, 0.98)
GLOBAL_BATCH = 256
MICRO_BATCH = 128
SAMPLES = 60_000
STEPS_PER_EPOCH = -(-SAMPLES // GLOBAL_BATCH)
EVALUATE_EVERY = 47
"""Five times an epoch."""


@dataclass(frozen=True)
class Setting:
    """The flags with which a program is started, beside those that are the same for all."""

    flags: str = ""
    is_torch: bool = False
    num_ranks: int = NUM_RANKS

    def __str__(self) -> str:
        program = "benchmarks.peers.ddp_loop" if self.is_torch else "ddpgd train"
        ranks = "" if self.num_ranks == NUM_RANKS else f", {self.num_ranks} rank"
        return " ".join([program, *self.flags.split()]) + ranks


@dataclass(frozen=True)
class Contestant(Setting):
    label: str = ""

    @property
    def whole(self) -> Setting:
        return Setting(self.flags, self.is_torch, self.num_ranks)


@dataclass(frozen=True)
class Run:
    """A whole one, of so many epochs, or a short one, of so many steps."""

    setting: Setting
    network: str
    seed: int = 0
    epochs: int = 0
    steps: int = 0


REFERENCE = "one-rank"
CONTESTANTS = {
    REFERENCE: Contestant(num_ranks=1, label="ddpgd, one rank, no link"),
    "float32": Contestant(label="ddpgd"),
    "float16": Contestant("--wire float16", label="ddpgd, float16"),
    "int8": Contestant("--wire int8 --error-feedback", label="ddpgd, int8 with error feedback"),
    "topk": Contestant("--wire topk", label="ddpgd, topk 1 %"),
    "powersgd": Contestant("--wire powersgd", label="ddpgd, powersgd rank 2"),
    "local-8": Contestant("--sync local", label="ddpgd, 8 local steps"),
    "local-64": Contestant("--sync local --local-steps 64 --wire float16", label="ddpgd, 64 local steps, float16"),
    "local-256": Contestant("--sync local --local-steps 256 --wire float16", label="ddpgd, 256 local steps, float16"),
    "outer": Contestant(
        "--sync local --local-steps 48 --wire int8 --error-feedback --outer-lr 0.7 --outer-momentum 0.5",
        label="ddpgd, 48 local steps, outer momentum, int8",
    ),
    "post-local": Contestant(
        f"--sync local --local-after {STEPS_PER_EPOCH}", label="ddpgd, 8 local steps after an epoch"
    ),
    "ddp": Contestant("--hook none", is_torch=True, label="PyTorch DDP"),
    "ddp-fp16": Contestant("--hook fp16", is_torch=True, label="PyTorch DDP, fp16 hook"),
    "ddp-powersgd": Contestant("--hook powersgd --start 10", is_torch=True, label="PyTorch DDP, PowerSGD rank 2"),
    "ddp-post-local": Contestant(
        f"--hook post-local --period 8 --start {STEPS_PER_EPOCH}", is_torch=True,
        label="PyTorch DDP, post-local SGD, 8 steps",
    ),
}  # fmt: skip


def command(run: Run, python: str, data: str, folder: str) -> list[str]:
    """Returns the command for each host; `folder` does not exist before."""
    sizes, flags = NETWORKS[run.network], run.setting.flags
    if run.setting.is_torch:
        length = f"--steps {run.steps}" if run.steps else f"--evaluate-every {EVALUATE_EVERY}"
        words = f"{data} {','.join(map(str, sizes))} {run.epochs or 1} {GLOBAL_BATCH} {folder} {length}"
        return [
            python,
            str(PEERS / "ddp_loop.py"),
            *f"{words} --rule momentum {flags} --seed {run.seed}".split(),
        ]
    length = (
        f"--steps {run.steps} --evaluate-every 1000000 --log-every {run.steps // 2}"
        if run.steps
        else f"--epochs {run.epochs} --evaluate-every {EVALUATE_EVERY} --log-every 1000000"
    )
    words = (
        f"--hidden {','.join(map(str, sizes[1:-1]))} --global-batch {GLOBAL_BATCH} --micro-batch {MICRO_BATCH} {length}"
    )
    words = f"{words} {flags} --seed {run.seed} --quiet --backend numpy"
    return [python, "-m", "ddpgd", "train", *words.split(), "--data", data, "--run-dir", folder]
