"""The device of a rank, and the transport that reaches it."""

import sys
from types import ModuleType

import pytest

from ddpgd.errors import InputError
from ddpgd.run import device


def test_without_nccl_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy.cuda", None)
    monkeypatch.delitem(sys.modules, "ddpgd.comm.transports.nccl", raising=False)
    with pytest.raises(InputError, match=r"--transport nccl: CuPy finds no NCCL .* type pip install nvidia-nccl-cu13"):
        device._nccl()


def test_cupy_without_nccl_imports_and_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of CuPy is there, without the library: it sets `available = False` and has none of the functions."""
    cupy, cuda, nccl = (ModuleType(name) for name in ("cupy", "cupy.cuda", "cupy.cuda.nccl"))
    vars(cupy)["cuda"], vars(cuda)["nccl"], vars(nccl)["available"] = cuda, nccl, False
    for module in (cupy, cuda, nccl):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "ddpgd.comm.transports.nccl", raising=False)
    with pytest.raises(InputError, match=r"--transport nccl: CuPy finds no NCCL \(cupy.cuda.nccl is not available\)"):
        device._nccl()
