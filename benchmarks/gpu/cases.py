"""Cases on a GPU, most important first: networks, rows of a step, precisions, contestants."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

SMALL = (784, 128, 10)
MIDDLE = (784, 512, 512, 10)
LARGE = (784, 2500, 2000, 1500, 1000, 500, 10)
NETWORKS = (SMALL, MIDDLE, LARGE)
ROWS = (128, 1024, 4096, 16384, 256, 512, 2048, 64, 8192)
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")

LR = 0.01
MOMENTUM = 0.9
LOSS_SCALE = 4096.0
"""Of the other libraries in float16: constant, and taken out again by the learning rate, so that it costs them nothing."""
STEPS_AT_ONCE = 8
"""Steps in one CUDA graph of the other libraries, where an epoch has as many: as ours."""


@dataclass(frozen=True)
class Case:
    """One step: a network, its rows, the precision of its products."""

    sizes: tuple[int, ...]
    rows: int
    precision: str

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, {self.rows} rows, {self.precision}"


NAMES = {
    "captured": "ddpgd",
    "captured-4": "ddpgd, 4 micro-batches",
    "captured-16": "ddpgd, 16 micro-batches",
    "persistent": "ddpgd, persistent kernel",
    "uncaptured": "ddpgd, no graph",
    "apart": "ddpgd, without cublasLt",
    "torch-eager": "PyTorch eager",
    "torch-graph": "PyTorch, CUDA graph",
    "compiled": "PyTorch compiled, reduce-overhead",
    "compiled-graph": "PyTorch compiled, max-autotune, CUDA graph",
    "jax": "JAX",
}
OTHERS = ("torch-eager", "torch-graph", "compiled", "compiled-graph", "jax")
LIBRARIES = {
    "ddpgd": ("captured", "persistent", "uncaptured", "apart", "captured-4", "captured-16"),
    "torch": ("torch-eager", "torch-graph"),
    "compiled": ("compiled",),
    "autotuned": ("compiled-graph",),
    "jax": ("jax",),
}
"""Each runs in a process of its own, where it can neither disturb nor take down another."""

COMPILED = (
    Case(SMALL, 128, "float32"),
    Case(MIDDLE, 1024, "tf32"),
    Case(LARGE, 1024, "tf32"),
    Case(LARGE, 1024, "bfloat16"),
)
"""Where torch.compile competes too: it takes up to a minute a case."""
HEADLINES = (
    *COMPILED,
    *(Case(sizes, rows, precision) for precision in PRECISIONS for sizes, rows in ((SMALL, 128), (MIDDLE, 1024))),
    *(Case(LARGE, 1024, precision) for precision in PRECISIONS),
)


CASES = ("all", "headlines", "compiled")
"""What --cases chooses from: every case, those that targets are about, those where torch.compile competes."""


def chosen(cases: list[Case], choice: str) -> list[Case]:
    """Returns those of `cases` that `choice`, of CASES, names, in the same order; all if none is among them."""
    wanted = {"headlines": HEADLINES, "compiled": COMPILED}.get(choice, cases)
    return [case for case in cases if case in wanted] or cases


def ordered(networks: Iterable[tuple[int, ...]], rows: Iterable[int], precisions: Iterable[str]) -> list[Case]:
    """All that is asked for, most important first."""
    asked = [Case(sizes, count, precision) for count, sizes, precision in product(rows, networks, precisions)]
    headlines = [case for case in dict.fromkeys(HEADLINES) if case in asked]
    return headlines + [case for case in asked if case not in headlines]


def contestants(case: Case) -> dict[str, tuple[str, ...]]:
    """Returns the contestants of a case, by library."""
    slow = () if case in COMPILED else ("compiled", "autotuned")
    return {library: keys for library, keys in LIBRARIES.items() if library not in slow}
