"""Each worker of pytest-xdist keeps to a core of its own: ranks as threads hand on Python's lock faster within a core."""

import os
import sys

import pytest


def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", None)
    if worker and sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        own = int(worker["workerid"].removeprefix("gw")) % len(cores)
        os.sched_setaffinity(0, {cores[own]})
