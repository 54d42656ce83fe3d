"""The limit of a training step: the time that its matrix products take alone on one thread, on all ranks at once."""

import argparse
import json
import statistics

from mpi4py import MPI
from threadpoolctl import threadpool_limits

from ddpgd.kernels.device_ops import Array
from ddpgd.scaling import gemm

LIBRARIES = ("numpy", "torch")


def seconds(library: str, left: Array, right: Array) -> float:
    """Returns the median time of one product in a library of LIBRARIES."""
    if library == "torch":
        import torch

        torch.set_num_threads(1)
        num_flop = gemm.flop_of(left, right)
        first, second = torch.from_numpy(left), torch.from_numpy(right)
        result = torch.empty(left.shape[0], right.shape[1])
        return statistics.median(gemm.times_of_calls_s(lambda: torch.matmul(first, second, out=result), num_flop))
    return gemm.seconds(left, right)


def main() -> None:
    """Prints as JSON the seconds of all products of a pass, on the slower rank."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("sizes", help="as in 784,128,10")
    parser.add_argument("rows", type=int)
    asked = parser.parse_args()
    comm, sizes = MPI.COMM_WORLD, [int(size) for size in asked.sizes.split(",")]
    own = 0.0
    with threadpool_limits(1, user_api="blas"):
        for _, left, right in gemm.products(sizes, asked.rows):
            comm.Barrier()
            own += seconds(asked.library, left, right)
    slowest = comm.allreduce(own, MPI.MAX)
    if comm.rank == 0:
        print(json.dumps({"seconds": slowest, "flop": gemm.flop(sizes, asked.rows)}))


if __name__ == "__main__":
    main()
