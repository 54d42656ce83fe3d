"""Becomes the fake CuPy, for processes that tests start with this folder's parent on PYTHONPATH."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from emulator import fake_cupy

fake_cupy.install(
    num_devices=int(os.environ.get("DDPGD_EMULATOR_DEVICES", "1")),
    lazy=os.environ.get("DDPGD_EMULATOR_LAZY") == "1",
)
