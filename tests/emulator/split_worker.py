"""Ranks of mpirun ask the laws of groups over the emulated NCCL, each with an emulated GPU of its own.

python -m emulator.split_worker; rank 0 prints the number of ranks that obey them.
"""

import os

from ddpgd.comm.launcher import launch
from ddpgd.comm.transports import nccl
from ddpgd.kernels.cuda.backend import Cuda
from ddpgd.run import setup
from split_laws import COLORINGS, check_split


def main() -> None:
    launched = launch(os.environ)
    world = setup.join(launched, may_use_gpu=True)
    with setup.ending_all_on_failure(world):
        ops = Cuda(launched.local_rank, "float32")
        transport, why = nccl.join(world, lambda: ops.stream)
        assert transport is not None, why
        for coloring in COLORINGS:
            check_split(transport, coloring, ops)
        obeying = world.all_gather_objects(True)
    if world.rank == 0:
        print(obeying.count(True))


if __name__ == "__main__":
    main()
