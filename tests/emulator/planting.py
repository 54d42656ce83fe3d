"""Faults planted in the text of kernels: found by a comparison with NumPy, or by the emulator itself.

A barrier or a fence that is missing shows in some orders of the threads only: a fault counts as found where one order shows it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from numpy.typing import NDArray

from ddpgd.kernels.cuda import sources

from . import fake_cupy
from .launcher import KernelError

Array = NDArray[Any]

ORDERS = ("forward", "reverse", "random:1", "interleaved:3", "interleaved:4")
BARRIER = "    __syncthreads();\n"


def agree(one: object, other: object) -> None:
    """Raises AssertionError if the two differ. A bare assert would look for all differences in their bytes, for minutes."""
    if one != other:
        raise AssertionError("they differ")


class Device:
    """The kernels of one text, and arrays for them."""

    def __init__(self, cupy: Any) -> None:
        # Binds what `import cupy` finds, so only now.
        from ddpgd.kernels.cuda.launcher import Launcher

        self.launch = Launcher("float32")
        self._cupy = cupy

    def put(self, values: Array) -> Any:
        return self._cupy.asarray(values)


Compare = Callable[[Device], None]


class Fault(NamedTuple):
    """`right` becomes `wrong` in the text that `compare` runs."""

    name: str
    compare: Compare
    right: str
    wrong: str


def run(compare: Compare, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare` on the text as it stands, the threads in that order."""
    monkeypatch.delenv("DDPGD_EMULATOR_ORDER", raising=False)
    with fake_cupy.install(order=order) as cupy:
        compare(Device(cupy))


def order_that_shows(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The first in which the fault is found; None: in none of them."""
    right, planted = sources.joined, []

    def joined(file: str) -> str:
        text = right(file)
        planted.append(fault.right in text)
        return text.replace(fault.right, fault.wrong)

    monkeypatch.setattr(sources, "joined", joined)
    found = None
    for order in ORDERS:
        try:
            run(fault.compare, order, monkeypatch)
        except (AssertionError, KernelError):
            found = order
            break
    assert any(planted), "the text to be changed is no longer there"
    return found
