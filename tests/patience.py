"""A hang fails a test instead of the session, and no test fails because the machine is slow."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache

import pytest

QUIET_START_S = 0.2
"""A start of Python with NumPy on a quiet machine."""
LIMIT_S = 300.0


@cache
def slowness() -> float:
    """Slowdown of this machine against a quiet one, at least 1; DDPGD_TEST_PATIENCE has another value."""
    if given := os.environ.get("DDPGD_TEST_PATIENCE"):
        return float(given)
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    return max(1.0, (time.monotonic() - started) / QUIET_START_S)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fails a test, with its fixtures, that does not end; `subprocess.run` then kills what it started."""
    limit_s = LIMIT_S * slowness() * (10 if item.get_closest_marker("deep") else 1)

    def fail(*_: object) -> None:
        pytest.fail(f"{item.nodeid} has not ended within {limit_s:.0f} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
