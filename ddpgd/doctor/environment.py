"""The environment of a process and its machine, whose parts must be equal on all ranks, or fit together."""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info

from ddpgd.comm.launcher import Launch, node
from ddpgd.data import download, mnist
from ddpgd.errors import InputError
from ddpgd.kernels.cuda import device as cuda_device
from ddpgd.kernels.cuda.device import Cuda, Device

PACKAGES = ("ddpgd", "numpy", "mpi4py", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python", "safetensors")
SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE")
LAUNCHERS = ("mpirun", "mpiexec", "prterun", "orterun", "prted", "orted", "hydra_pmi_proxy", "mpiexec.hydra", "srun")
"""Names of the programs whose children are ranks. Slurm's slurmstepd is none: a batch script's commands are no ranks."""


@dataclass(frozen=True)
class Environment:
    """The environment of one process. `parent`: the launcher among the programs that started it; empty: there is none.

    `gpu_absence`, `data_absence`: why there is none. `cores`: those it may run on. `blas`: build, and threads.
    `num_allocated`: machines that Slurm gave to its job; 1 without Slurm.
    """

    host: str
    num_allocated: int
    launched: Launch
    parent: str
    library: str
    gpu: Device | None
    gpu_absence: str
    cuda: Cuda | None
    cpu: str
    cores: tuple[int, ...]
    blas: str
    blas_threads: int
    packages: Mapping[str, str]
    python: str
    sources: str
    settings: Mapping[str, str]
    configuration: str
    data: str
    data_absence: str


def collect(launched: Launch, library: str, config: str | None, data: str | None) -> Environment:
    """Reads the environment of this process. `library`: the name of its MPI; `config`: a file that must be equal."""
    gpu, absence = cuda_device.select(launched.local_rank)
    place = download.locate(data, os.environ)
    digest, data_absence = _data(place.directory)
    if data_absence and place.is_cache:
        digest, data_absence = "to be fetched", ""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return Environment(
        host=node(),
        num_allocated=int(os.environ.get("SLURM_JOB_NUM_NODES", "1")),
        launched=launched,
        parent=_parent_launcher(),
        library=library,
        gpu=gpu,
        gpu_absence=absence,
        cuda=cuda_device.versions(),
        cpu=_cpu(),
        cores=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
        blas=", ".join(
            f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip() for pool in pools
        ),
        blas_threads=max((pool["num_threads"] for pool in pools), default=1),
        packages={name: number for name in PACKAGES if (number := _version(name))},
        python=platform.python_version(),
        sources=_digest(sorted(Path(__file__).parent.rglob("*.py"))),
        settings={name: os.environ[name] for name in SETTINGS if name in os.environ},
        configuration=_digest([Path(config)]) if config else "",
        data=digest,
        data_absence=data_absence,
    )


def _parent_launcher() -> str:
    """The nearest program among this process's parents that is a launcher."""
    process = os.getppid()
    while process > 1:
        try:
            stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
        except OSError:
            return ""
        name, _, rest = stat.partition("(")[2].rpartition(")")
        if name in LAUNCHERS:
            return name
        process = int(rest.split()[1])
    return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _data(directory: Path | None) -> tuple[str, str]:
    """Return a digest of the data, or why there are none."""
    if directory is None:
        return "synthetic", ""
    try:
        return mnist.load(directory).sha256[:16], ""
    except InputError as error:
        reason = str(error).removeprefix(f"{directory}: ").partition(";")[0]
        return "", f"no MNIST in {directory}: {reason}"


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            return f"{file}: {error.strerror}"
    return digest.hexdigest()[:16]
