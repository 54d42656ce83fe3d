"""The parts that builders of all syncs make alike: decisions, update rules, learning rates, states."""

from collections.abc import Mapping
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.sharding import Shares
from ddpgd.comm.wires import WIRES
from ddpgd.config.schema import Config, global_batch
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import Policy
from ddpgd.optim import rules, schedules
from ddpgd.optim.matrices import MatrixOptimizer, Parts
from ddpgd.optim.rules import RULES, Optimizer
from ddpgd.optim.schedules import PLATEAU, SCHEDULES, Plateau, Schedule
from ddpgd.params import Layout
from ddpgd.run import build_exchange
from ddpgd.training.counters import Counters
from ddpgd.training.state import Held, TrainState

INITIAL_LOSS_SCALE = 2.0**12
LARGEST_LOSS_SCALE = 2.0**15
"""The gradient of one sample's loss by its logits lies in -1 to 1, and float16 ends at 65,504."""
LOSS_SCALE_GROWTH_STEPS = 1000


def policy(config: Config, batch: int) -> Policy:
    """The rules of the decision of a step of `batch` samples.

    Only float16 overflows where float32 does not: its loss scale adapts itself.
    With a wire that takes the momentum, each rank clips what it adds.
    Micikevicius et al., "Mixed precision training", 2018.
    """
    growth_interval = LOSS_SCALE_GROWTH_STEPS if config.precision == "float16" else 0
    clip_norm = 0.0 if WIRES[config.wire].takes_momentum and config.sync == "every-step" else config.clip_norm
    return Policy(batch, clip_norm, growth_interval, LARGEST_LOSS_SCALE, config.clip_value)


def state(
    backend: Ops,
    config: Config,
    params: NDArray[np.float32],
    counters: Counters,
    shares: Shares,
    held: Held,
    rule: Optimizer,
) -> TrainState:
    """The state at `counters`, from `params` (n,) on the host."""
    loss_scale = INITIAL_LOSS_SCALE if config.precision == "float16" else 1.0
    return TrainState.create(backend, params, counters, shares, held, rule.state, loss_scale)


def named(prefix: str, vectors: Mapping[str, Array]) -> dict[str, Array]:
    """Vectors by their names in checkpoints."""
    return {f"{prefix}{name}": vector for name, vector in vectors.items()}


def wire_state(prefix: str, exchange: Exchange) -> dict[str, Array]:
    """The vectors of a compressor that are equal on all ranks, by their names in checkpoints."""
    compressor = exchange.compressor
    return named(prefix, compressor.replicated if compressor else {})


def optimizer(backend: Ops, config: Config, layout: Layout, own: slice) -> Optimizer:
    """The update rule of a part of vectors; plain SGD where the wire has the momentum, with the weight decay that momentum
    would multiply."""
    size = own.stop - own.start
    if momentum := build_exchange.momentum_of_wire(config):
        return rules.make("sgd", backend, size, config.weight_decay / (1 - momentum))
    rule = RULES[config.optimizer]
    options = {name: getattr(config, name) for name in rule.options}
    if rule.companion:
        return MatrixOptimizer(backend, rule, size, config.weight_decay, options, parts(layout, own))
    return rules.make(config.optimizer, backend, size, config.weight_decay, **options)


def parts(layout: Layout, own: slice) -> Parts:
    """Returns the places of the tensors that a part of vectors holds, all of them whole."""
    found = Parts([], [])
    held = [tensor for tensor in layout.tensors if own.start <= tensor.start < own.stop]
    for is_hidden, tensors in groupby(held, lambda tensor: tensor.is_hidden):
        group = list(tensors)
        if is_hidden:
            found.matrices.extend((tensor.start - own.start, tensor.shape) for tensor in group)
        else:
            found.rest.append(slice(group[0].start - own.start, group[-1].start + group[-1].size - own.start))
    return found


def learning_rates(config: Config, total_steps: int) -> Schedule:
    """step -> rates, the learning rate scaled to the global batch where that is asked for."""
    assert config.lr is not None, "resolve() was not called"
    factor = schedules.scale(config.scale_lr, global_batch(config)) if config.scale_lr else 1.0
    options = {name: getattr(config, name) for name in SCHEDULES[config.schedule].options}
    made = schedules.make(config.schedule, factor * config.lr, total_steps, config.warmup, **options)
    return made if RULES[config.optimizer].momentum else lambda step: made(step)._replace(momentum=0.0)


def plateau(config: Config) -> Plateau | None:
    """The rule by which evaluations lower the learning rate; None: they do not."""
    given = config.plateau_factor, config.plateau_patience, config.plateau_threshold
    return Plateau(*given) if config.schedule == PLATEAU else None
