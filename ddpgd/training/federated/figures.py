"""Figures over clients: the loss and accuracy of the global params on the samples of each."""

import math
from collections.abc import Sequence

import numpy as np

from ddpgd.comm.transport import Transport
from ddpgd.kernels.device_ops import Array
from ddpgd.training.counters import Record, finite_or_none
from ddpgd.training.evaluate import Evaluate


class ClientFigures:
    """Evaluates the clients, shared out over ranks; every rank calls it, and gets the same."""

    def __init__(self, own: Sequence[Evaluate], transport: Transport) -> None:
        """`own`: evaluations of every W-th client, from the rank's number on, by this rank alone."""
        self._own = own
        self._transport = transport

    def __call__(self, params: Array, weights: Array) -> Record:
        """Returns mean, standard deviation, and the mean over the worst tenth of clients, each client counting alike."""
        gathered = self._transport.all_gather_objects([evaluate(params, weights) for evaluate in self._own])
        losses, accuracies = np.sort([pair for pairs in gathered for pair in pairs], axis=0).T
        worst = accuracies[: math.ceil(len(accuracies) / 10)]
        return {
            "client_loss_mean": finite_or_none(float(np.mean(losses))),
            "client_accuracy_mean": float(np.mean(accuracies)),
            "client_accuracy_std": float(np.std(accuracies)),
            "client_accuracy_worst_decile": float(np.mean(worst)),
        }
