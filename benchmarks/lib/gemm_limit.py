"""The limit of a training step: how long its matrix products alone take on one thread, on all ranks at once."""

import argparse
import json
import statistics
import time
from itertools import pairwise

import numpy as np
from mpi4py import MPI
from threadpoolctl import threadpool_limits


def products(sizes, rows):
    """Name, left and right factor of each product in a forward and backward pass over `rows` samples."""
    random = np.random.default_rng(0)
    for number, (k, n) in enumerate(pairwise(sizes)):
        x, weight, dout = (random.normal(size=shape).astype(np.float32) for shape in ((rows, k), (k, n), (rows, n)))
        yield f"forward {rows}x{k}x{n}", x, weight
        yield f"backward params {k}x{rows}x{n}", x.T, dout
        if number > 0:
            yield f"backward input {rows}x{n}x{k}", dout, weight.T


def flop(sizes, rows):
    """Floating-point operations of those products."""
    return sum(2 * left.shape[0] * left.shape[1] * right.shape[1] for _, left, right in products(sizes, rows))


def seconds(library, left, right, wait=lambda: None):
    """Median time of one product in `library` ("numpy" or "torch")."""
    if library == "torch":
        import torch

        torch.set_num_threads(1)
        left, right = torch.from_numpy(left), torch.from_numpy(right)
        out, multiply = torch.empty(left.shape[0], right.shape[1]), torch.matmul
    else:
        out, multiply = np.empty((left.shape[0], right.shape[1]), np.float32), np.matmul
    num_calls = max(1, round(2e9 / (2 * left.shape[0] * left.shape[1] * right.shape[1]) / 10))
    wait()
    times = []
    for _ in range(12):
        started = time.perf_counter()
        for _ in range(num_calls):
            multiply(left, right, out=out)
        times.append((time.perf_counter() - started) / num_calls)
    return statistics.median(times[2:])


def main():
    """Prints as JSON the seconds of all products of a pass, on the slower rank."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS)
    parser.add_argument("library", choices=("numpy", "torch"))
    parser.add_argument("sizes", help="as in 784,128,10")
    parser.add_argument("rows", type=int)
    asked = parser.parse_args()
    comm, sizes = MPI.COMM_WORLD, [int(size) for size in asked.sizes.split(",")]
    with threadpool_limits(1, user_api="blas"):
        own = sum(seconds(asked.library, left, right, comm.Barrier) for _, left, right in products(sizes, asked.rows))
    slowest = comm.allreduce(own, MPI.MAX)
    if comm.rank == 0:
        print(json.dumps({"seconds": slowest, "flop": flop(sizes, asked.rows)}))


if __name__ == "__main__":
    main()
