"""What a rank computes on, and how it is reached."""

import sys

import pytest

from ddpgd.errors import InputError
from ddpgd.run import device


def test_without_nccl_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy.cuda", None)
    monkeypatch.delitem(sys.modules, "ddpgd.comm.transports.nccl", raising=False)
    with pytest.raises(InputError, match=r"--transport nccl: CuPy finds no NCCL .* type pip install nvidia-nccl-cu13"):
        device._nccl()
