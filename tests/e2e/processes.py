"""The processes of a run that was started."""

import subprocess
from collections.abc import Iterator
from typing import Any


def ranks_of(process: "subprocess.Popen[Any]") -> Iterator[int]:
    """Process ids of the ranks that this mpirun started."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        pid, parent, arguments = line.split(maxsplit=2)
        if int(parent) == process.pid and "-m ddpgd train" in arguments:
            yield int(pid)
