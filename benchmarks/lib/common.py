"""Names that several benchmarks share: folders, the number of ranks, the learning rate, the links of the lab."""

import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
NUM_RANKS = 2
LR = 0.1

SHARED_MEMORY = "shm"
LAB_LINKS = {"1gbit": 1e9 / 8, "100mbit": 1e8 / 8, "10mbit": 1e7 / 8}
"""Bytes a second that each link of the lab lets through, frames included."""


def typed(module: str, arguments: list[str]) -> str:
    """Returns the command that a reader types for a benchmark's module."""
    return shlex.join(["python", "-m", module, *arguments])


def shown(command: str) -> str:
    """Returns a command as it is typed in the repository's root."""
    return command.replace(f"{ROOT}/", "")
