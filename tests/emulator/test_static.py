"""Machine code of the kernels: no spills, and inner loops as tight as `benchmarks/gpu/static.json` says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compile_cache

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("arch", ["80", "90a"])
def test_kernels_are_as_tight_as_written(arch: str) -> None:
    """After a change of kernels that is meant, type python -m tools.ptx_report --write."""
    compile_cache.folder().mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"DDPGD_COMPILE_LOGS": str(compile_cache.folder()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tools.ptx_report", "--archs", arch]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    products = [row for row in rows if row[0] == "dense.cu" and row[1].startswith(("forward_", "params_", "input_"))]
    assert len(products) >= 15
    assert all(int(row[5].partition("+")[2]) > 16384 for row in products), (
        "dynamic shared memory, which dense.py asks for"
    )
    assert all("FFMA" in row[9] or "HMMA" in row[9] for row in products)
