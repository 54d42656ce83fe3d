"""Parts of the environment that must be equal on all ranks, and what to type where they are not."""

from collections.abc import Callable

from ddpgd.doctor.environment import Environment

ALIKE: tuple[tuple[str, Callable[[Environment], object], str, bool], ...] = (
    ("another ddpgd", lambda facts: facts.sources, "pip install the same ddpgd on every machine", True),
    (
        "another configuration file",
        lambda facts: facts.configuration,
        "ddpgd train --config FILE, on a disk that all machines share",
        True,
    ),
    ("other data", lambda facts: facts.data or facts.data_absence, "ddpgd data --data DIR on every machine", True),
    (
        "other packages",
        lambda facts: tuple(facts.packages.items()),
        "launch/local.sh --steps 1, in a folder that all machines share",
        False,
    ),
    (
        "another Python",
        lambda facts: facts.python,
        "launch/local.sh --steps 1, in a folder that all machines share",
        False,
    ),
    (
        "another CPU",
        lambda facts: facts.cpu,
        "sbatch --constraint NAME, or a host file of one kind of machines, for equal bits",
        False,
    ),
    (
        "another BLAS",
        lambda facts: facts.blas,
        "export OPENBLAS_CORETYPE=Haswell on every machine, for equal bits",
        False,
    ),
    (
        "another GPU model",
        lambda facts: facts.gpu and facts.gpu.name,
        "sbatch --constraint NAME, or a host file of one kind of machines, for equal bits",
        False,
    ),
    (
        "another MPI library",
        lambda facts: facts.library,
        "export MPI4PY_LIBMPI=/path/to/the/same/libmpi.so on every machine",
        True,
    ),
    (
        "other settings",
        lambda facts: tuple(facts.settings.items()),
        "mpirun -x NAME=VALUE, which hands it to all ranks",
        False,
    ),
)
"""What should be alike: in words, of facts, what to type, and whether a difference is fatal."""
