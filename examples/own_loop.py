"""The ordered exchange in a loop of your own: a least-squares fit, the same bits on any number of ranks.

mpirun -n 3 python examples/own_loop.py
"""

import numpy as np
from mpi4py import MPI

import ddpgd

rng = np.random.default_rng(0)
x = rng.standard_normal((1000, 8), np.float32)
y = x @ np.arange(8, dtype=np.float32)
micro_batches = np.array_split(np.arange(1000), 16)

params = np.zeros(8, np.float32)
exchange = ddpgd.exchange(MPI.COMM_WORLD, size=8)


def gradient(micro_batch, grads, stats):
    rows = micro_batches[micro_batch]
    error = x[rows] @ params - y[rows]
    grads[:] = x[rows].T @ error
    stats[ddpgd.StepStats.SAMPLES] = len(rows)
    stats[ddpgd.StepStats.LOSS_SUM] = error @ error


for _ in range(100):
    grads, stats = exchange.sum(len(micro_batches), gradient)
    params -= 0.5 * grads / stats[ddpgd.StepStats.SAMPLES]

if MPI.COMM_WORLD.rank == 0:
    print(
        f"{MPI.COMM_WORLD.size} ranks: loss {stats[ddpgd.StepStats.LOSS_SUM]:.3g}, params {params.tobytes().hex()[:32]}"
    )
