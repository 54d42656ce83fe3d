"""One report from many ranks: rank 0 speaks for all while tests pass, a rank that fails speaks and ends the whole job.

Tests here run as `mpirun -n W python -m pytest --with-mpi tests/parallel` and carry `@pytest.mark.mpi(min_size=k)`.
Without the abort, a rank that fails before a collective would leave the others waiting in it for ever.
"""

import atexit
import faulthandler
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mpi4py import MPI

from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.data import synthetic
from ddpgd.data.mnist import Dataset
from ddpgd.run import starting
from ddpgd.training.stopping import StopRequest

WORLD = MPI.COMM_WORLD
# Of one test: generous, because the machine may be busy. The first rank to reach it prints its stack, and mpirun ends the job.
LIMIT_S = 120 * float(os.environ.get("DDPGD_TEST_PATIENCE", "5"))

# pytest tidies up its folder of temporary folders at the end, and ranks that share one trip over each other there.
TEMPORARY = tempfile.TemporaryDirectory(prefix=f"rank-{WORLD.rank}-")
atexit.register(TEMPORARY.cleanup)
os.environ["PYTEST_DEBUG_TEMPROOT"] = TEMPORARY.name


@pytest.fixture
def comm() -> Iterator[MPI.Comm]:
    """A duplicate of the world, so that no message of one test can reach the next."""
    duplicate = WORLD.Dup()
    yield duplicate
    duplicate.Free()


make_digits = synthetic.make


@cache
def digits() -> Dataset:
    return make_digits(num_train=330, num_test=1101)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples that --data synthetic then names."""
    monkeypatch.setattr(synthetic, "make", digits)


@pytest.fixture
def folder(comm: MPI.Intracomm, tmp_path: Path) -> Path:
    """Rank 0's temporary folder, on all ranks."""
    return comm.bcast(tmp_path)


@pytest.fixture
def train(comm: MPI.Intracomm) -> Callable[..., dict[str, Any]]:
    """A run on all ranks; with alone=True, rank 0 makes it by itself, and all get its summary."""

    def run(path: Path, alone: bool = False, **given: Any) -> dict[str, Any]:
        small = {"data": "synthetic", "hidden": (12,), "log_every": 1, "quiet": True, "run_dir": str(path)}
        if "resume" not in given:
            small |= {"global_batch": 50, "micro_batch": 7, "lr": 0.05, "steps": 9, "evaluate_every": 4}

        def on(world: Transport) -> dict[str, Any]:
            return starting.start_run(
                small | given, world, Launch("Open MPI", world.rank, world.world_size, world.rank), StopRequest()
            )

        if not alone:
            return on(MpiHost(comm))
        return comm.bcast(on(Alone()) if comm.rank == 0 else None)

    return run


class Alarm:
    """Ends the whole job, naming the rank, at the first thing that goes wrong on this one."""

    def __init__(self) -> None:
        self.stderr = os.dup(2)  # pytest points 2 elsewhere while a test runs

    def abort(self, what: str, why: object) -> None:
        where = f"rank {WORLD.rank} of {WORLD.size} on {socket.gethostname()}"
        os.write(self.stderr, f"\n{where}: {what}\n{why}\n{where}: {what}: ending the job\n".encode())
        WORLD.Abort(1)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=self.stderr)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.abort(f"{report.nodeid} failed in {report.when}", report_text(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.abort(f"{report.nodeid} cannot be collected", report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.abort("pytest itself failed", excrepr)


def report_text(report: pytest.TestReport) -> str:
    sections = [f"--- {title} ---\n{text}" for title, text in report.sections]
    return "\n".join([report.longreprtext, *sections])


@pytest.hookimpl(trylast=True)  # the reporter has to be there already
def pytest_configure(config: pytest.Config) -> None:
    if WORLD.rank != 0:
        config.pluginmanager.unregister(name="terminalreporter")
    config.pluginmanager.register(Alarm())
