"""Becomes the fake CuPy, for processes that tests start with this folder's parent on PYTHONPATH."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from emulator import fake_cupy, fake_device, fake_nvmath

RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))


def own(name: str, default: str) -> str:
    """Returns this rank's value of a variable with one for each rank, as in 80,70; further ranks have the last one."""
    values = os.environ.get(name, default).split(",")
    return values[min(RANK, len(values) - 1)]


fake_device.COMPUTE_CAPABILITY = own("DDPGD_EMULATOR_CAPABILITIES", fake_device.COMPUTE_CAPABILITY)
fake_cupy.install(
    num_devices=int(os.environ.get("DDPGD_EMULATOR_DEVICES", "1")),
    lazy=os.environ.get("DDPGD_EMULATOR_LAZY") == "1",
    nccl=os.environ.get("DDPGD_EMULATOR_NCCL") != "0",
)
# A version of cuBLAS, as in 130002; 0: there is none.
if version := int(own("DDPGD_EMULATOR_CUBLAS", "0")):
    cublas = fake_nvmath.install(version)
    cublas.__enter__()
    vars(fake_nvmath)["installed"] = cublas  # this module itself goes when the fake takes its place
