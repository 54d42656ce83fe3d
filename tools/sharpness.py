"""Measure how sharp the minimum is that a run has found: python -m tools.sharpness RUN... --data DIR

Sharpness is 100 (max f - f(w)) / (1 + f(w)): by how much the training loss f can rise in the box of params that differ from
w, the run's best ones where it has validation samples, else its last, by at most EPSILON (|w| + 1). L-BFGS-B of SciPy looks
for the rise, in ten iterations from w, on the first 5,000 training samples. Source: Keskar, Mudigere, Nocedal, Smelyanskiy,
Tang, "On large-batch training for deep learning: generalization gap and sharp minima", 2017.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from ddpgd.comm.transport import Alone
from ddpgd.config.schema import from_table
from ddpgd.data import mnist
from ddpgd.data.holdout import hold_out
from ddpgd.data.pooling import pooled
from ddpgd.errors import InputError
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, CURSOR_WORDS, TAIL_WORDS, Control, Tail
from ddpgd.model.network import Network
from ddpgd.run import build_network, checkpoint_search, inference, resharding
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.stderr import say

NUM_SAMPLES = 5000
EPSILONS = (5e-4, 1e-3)
"""The second is one of the paper's two."""
_ITERATIONS = 10
_ROWS = 500

Vector = NDArray[np.float64]


class TrainingLoss:
    """The mean loss of a checkpoint's network over training samples, without dropout or augmentation.

    Attributes:
        params: The checkpoint's, float64 (n,).
    """

    def __init__(self, saved: Checkpoint, data: mnist.Dataset) -> None:
        config = from_table(saved.config)
        kept = ("hidden", "activation", "loss", "shards", "input_pool")
        plain = type(config)(**{name: getattr(config, name) for name in kept})
        own = hold_out(data, config.validation)
        self._images = pooled(own.train_images[:NUM_SAMPLES], data.image_shape, config.input_pool)
        self._labels = own.train_labels[:NUM_SAMPLES]
        self._network: Network = build_network.model(Reference(), plain, data.image_shape, _ROWS)
        self.params: Vector = resharding.params(Alone(), self._network.layout, saved.arrays).astype(np.float64)

    def __call__(self, params: Vector) -> tuple[float, Vector]:
        """Returns the loss at `params` (n,), and its gradient (n,)."""
        control, cursor, tail = (
            np.zeros(CONTROL_WORDS),
            np.zeros(CURSOR_WORDS, np.int64),
            np.zeros((1, TAIL_WORDS), np.float32),
        )
        control[Control.LOSS_SCALE] = 1
        single, order = params.astype(np.float32), np.arange(len(self._labels))
        grads = np.zeros((1, params.size), np.float32)
        loss, total = 0.0, np.zeros_like(params)
        for start in range(0, len(order), _ROWS):
            num_rows = min(_ROWS, len(order) - start)
            self._network.load(self._images, self._labels, order, cursor, start, num_rows)
            self._network.gradient(single, single, num_rows, num_rows, control, grads, tail)
            loss += float(tail[0, Tail.LOSS_SUM])
            total += grads[0]
        return loss / len(order), total / len(order)


def sharpness(loss: TrainingLoss, epsilon: float) -> float:
    """Returns the sharpness at the params of `loss`, in a box of this size."""
    start, reach = loss.params, epsilon * (np.abs(loss.params) + 1)

    def negative(params: Vector) -> tuple[float, Vector]:
        value, grads = loss(params)
        return -value, -grads

    bounds = np.stack([start - reach, start + reach], axis=1)
    found = minimize(
        negative,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _ITERATIONS, "gtol": 0.0, "ftol": 0.0},
    )
    before = loss(start)[0]
    return float(100 * (-found.fun - before) / (1 + before))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the loss and the sharpness of each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", required=True, type=Path, help="folder with MNIST's files")
    asked = parser.parse_args(arguments)
    try:
        data = mnist.load(asked.data)
        with threadpool_limits(1, user_api="blas"):
            for run in asked.runs:
                path, saved = checkpoint_search.find_best(run, say)
                inference.check_same_data(path, saved, data)
                loss = TrainingLoss(saved, data)
                values = ", ".join(f"{sharpness(loss, epsilon):.3g} at {epsilon:g}" for epsilon in EPSILONS)
                print(f"{run}: training loss {loss(loss.params)[0]:.4g}; sharpness {values}")
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
