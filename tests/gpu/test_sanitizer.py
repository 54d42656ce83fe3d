"""A short training under NVIDIA's compute-sanitizer, which sees accesses out of bounds and races in shared memory."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = shutil.which("compute-sanitizer")
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
RUN_S = 120

# Without CuPy's pool each array is an allocation of its own, whose ends the tool knows.
PROGRAM = """
import sys
import cupy
from ddpgd.cli.main import main
cupy.cuda.set_allocator(None)
sys.exit(main(sys.argv[1:]))
"""
TRAIN = "train --backend cupy --data synthetic --hidden 40,24 --global-batch 90 --micro-batch 16 --steps 3 --quiet"


@pytest.mark.skipif(TOOL is None, reason="compute-sanitizer is not on PATH")
@pytest.mark.parametrize(
    ("tool", "precision"), [("memcheck", "float32"), ("memcheck", "bfloat16"), ("racecheck", "bfloat16")]
)
def test_no_access_out_of_bounds_and_no_race(tmp_path: Path, tool: str, precision: str) -> None:
    watched = [sys.executable, "-c", PROGRAM, *TRAIN.split(), "--precision", precision, "--run-dir", "run"]
    command = [str(TOOL), "--tool", tool, *watched]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{tool} takes more than {RUN_S} s")
    said = done.stdout + done.stderr
    found = SUMMARY.search(said)
    assert found is not None, f"compute-sanitizer gives no summary: {' '.join(said.split())[-300:]}"
    assert found[1] == "0", said[-4000:]
    assert done.returncode == 0, said[-4000:]
