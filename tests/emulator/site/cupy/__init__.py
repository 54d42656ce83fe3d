"""Becomes the fake CuPy, for processes that tests start with this folder's parent on PYTHONPATH."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from emulator import fake_cupy, fake_device

# One for each rank, as in 80,70; the last one's again for further ranks.
CAPABILITIES = os.environ.get("DDPGD_EMULATOR_CAPABILITIES", fake_device.COMPUTE_CAPABILITY).split(",")
RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))
fake_device.COMPUTE_CAPABILITY = CAPABILITIES[min(RANK, len(CAPABILITIES) - 1)]
fake_cupy.install(
    num_devices=int(os.environ.get("DDPGD_EMULATOR_DEVICES", "1")),
    lazy=os.environ.get("DDPGD_EMULATOR_LAZY") == "1",
)
