"""The library: training and evaluation as `ddpgd` does them, and the exchange for a training loop of your own."""

from ddpgd.api.own_loop import exchange
from ddpgd.api.results import load_params, plot, predict, read_history, read_summary
from ddpgd.api.runs import evaluate, train
from ddpgd.comm.exchange import Exchange
from ddpgd.config.schema import Config
from ddpgd.errors import DdpgdError, InputError, Interrupted, NonFiniteError, ReplicasDiffer
from ddpgd.kernels.words import Tail as StepStats
from ddpgd.run.summary import Evaluation, Summary

__all__ = [
    "Config",
    "DdpgdError",
    "Evaluation",
    "Exchange",
    "InputError",
    "Interrupted",
    "NonFiniteError",
    "ReplicasDiffer",
    "StepStats",
    "Summary",
    "evaluate",
    "exchange",
    "load_params",
    "plot",
    "predict",
    "read_history",
    "read_summary",
    "train",
]
