"""The device of a rank, and the transport that reaches it."""

import os
import sys
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import mpi_probe, threads
from ddpgd.comm.transports.mpi_probe import why_not_cuda_aware
from ddpgd.comm.transports.staged import Staged
from ddpgd.errors import InputError
from ddpgd.kernels.cuda.device import select
from ddpgd.run.reach import Reached, reach

BACKEND: Any = SimpleNamespace(stream=None, synchronize=lambda: None)
"""As much of a backend on a GPU as choosing a transport takes."""


@pytest.mark.parametrize(("given", "wanted"), [(None, "32"), ("1", "1")])
def test_streams_have_queues_of_their_own_unless_the_environment_says_otherwise(
    given: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", given or "")
    if given is None:
        monkeypatch.delenv("CUDA_DEVICE_MAX_CONNECTIONS")
    select(0)
    assert os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == wanted


class NcclError(Exception):
    """An error of CuPy's NCCL."""


def plant(monkeypatch: pytest.MonkeyPatch, communicator: Callable[[int, str, int], Any] | None = None) -> None:
    """Plants a CuPy; without `communicator` its NCCL is not available, as where the library is missing."""
    cupy, cuda, nccl = (ModuleType(name) for name in ("cupy", "cupy.cuda", "cupy.cuda.nccl"))
    device = SimpleNamespace(use=lambda: None)
    vars(cuda).update(nccl=nccl, Device=lambda: device, Stream=lambda **_: device)
    vars(cupy).update(cuda=cuda, asarray=np.asarray, zeros=np.zeros, asnumpy=np.asarray)
    vars(nccl)["available"] = communicator is not None
    if communicator:
        vars(nccl).update(NcclError=NcclError, get_unique_id=lambda: "id", NcclCommunicator=communicator)
    for module in (cupy, cuda, nccl):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "ddpgd.comm.transports.nccl", raising=False)
    monkeypatch.delattr("ddpgd.comm.transports.nccl", raising=False)


def on_two_ranks(name: str, owns_gpu: bool = True) -> list[Reached]:
    return threads.run(2, lambda own: reach(name, owns_gpu, BACKEND, own))


def test_without_nccl_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy.cuda", None)
    monkeypatch.delitem(sys.modules, "ddpgd.comm.transports.nccl", raising=False)
    with pytest.raises(InputError, match=r"--transport nccl: CuPy finds no NCCL .* type pip install nvidia-nccl-cu13"):
        reach("nccl", True, BACKEND, Alone())


def test_cupy_without_nccl_imports_and_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of CuPy is there, without the library: it sets `available = False` and has none of the functions."""
    plant(monkeypatch)
    with pytest.raises(InputError, match=r"--transport nccl: CuPy finds no NCCL \(cupy.cuda.nccl is not available\)"):
        reach("nccl", True, BACKEND, Alone())


def fails_on_rank_1(_size: int, _id: str, rank: int) -> Any:
    """A communicator that starts on one rank alone, and sums nothing there."""
    if rank == 1:
        raise NcclError("NCCL_ERROR_SYSTEM_ERROR\nmore")
    return SimpleNamespace(abort=lambda: None)


def hangs_on_rank_1(_size: int, _id: str, rank: int) -> Any:
    """A start that never ends."""
    if rank == 1:
        time.sleep(3600)
    raise NcclError("a rank is missing")


@pytest.mark.parametrize(
    ("communicator", "why"),
    [
        (None, "CuPy finds no NCCL"),
        (fails_on_rank_1, "NCCL does not start: "),
        (hangs_on_rank_1, "NCCL does not start: a rank is missing; NCCL_DEBUG=WARN says more (on rank 0, "),
    ],
)
def test_auto_takes_host_memory_on_all_ranks_where_nccl_fails_on_one(
    communicator: Callable[[int, str, int], Any] | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, communicator)
    if communicator:
        from ddpgd.comm.transports import nccl

        monkeypatch.setattr(nccl, "TRIAL_S", 0.3)
    found = on_two_ranks("auto")
    assert {type(one.transport) for one in found} == {Staged}
    assert found[0].why == found[1].why
    assert found[0].why.startswith(why)
    assert "\n" not in found[0].why
    with pytest.raises(InputError, match=r"--transport nccl: .*; --transport mpi-host does without"):
        on_two_ranks("nccl")


def test_a_trial_that_never_ends_is_told_with_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda *_: time.sleep(3600))
    from ddpgd.comm.transports import nccl

    monkeypatch.setattr(nccl, "TRIAL_S", 0.3)
    assert "no end of a trial within 0.5 s" in on_two_ranks("auto")[1].why


def test_auto_tries_no_nccl_where_ranks_share_a_gpu_or_there_is_one_rank() -> None:
    assert {one.why for one in on_two_ranks("auto", owns_gpu=False)} == {"NCCL wants a GPU for each rank"}
    assert reach("auto", True, BACKEND, Alone()).why == ""


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("pass", ""),
        ("raise SystemExit(3)", "a trial in a process of its own failed (exit code 3)"),
        ("raise ImportError('no cupy')", "a trial in a process of its own failed (ImportError: no cupy)"),
        ("import os; os.abort()", "a trial in a process of its own was ended by SIGABRT"),
    ],
)
def test_a_child_that_dies_tells_as_much_as_one_that_lives(program: str, why: str) -> None:
    assert why_not_cuda_aware(program) == why


def test_a_child_that_hangs_is_ended() -> None:
    assert why_not_cuda_aware("import time; time.sleep(60)", 0.3).endswith("had no end within 0 s")


def test_mpi_that_crashes_with_arrays_of_a_gpu_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os; os.abort()"
    monkeypatch.setattr(mpi_probe.why_not_cuda_aware, "__defaults__", (program, 60.0))
    with pytest.raises(InputError, match=r"--transport mpi-cuda: MPI does not move arrays of GPUs here: .*SIGABRT"):
        on_two_ranks("mpi-cuda")
