"""Refusals of layouts: shards that layers do not have, and what ranks with a part of the params each cannot do."""

from ddpgd.comm.wires import WIRES, Kind
from ddpgd.config.schema import Config, text_of
from ddpgd.errors import InputError


def check(config: Config) -> None:
    """Refuses shards that layers do not have, and what a grid of ranks cannot do."""
    narrowest = min(config.hidden, default=config.shards)
    if config.shards > narrowest:
        raise InputError(
            f"--shards {config.shards}: a hidden layer is {narrowest} wide; type --shards {narrowest} or less"
        )
    if config.tensor > config.shards:
        raise InputError(
            f"--tensor {config.tensor}: more than --shards {config.shards}; type --shards {config.tensor} in a new run, or "
            f"--tensor {config.shards}"
        )
    if config.stages and config.pipeline == 1:
        raise InputError(f"--stages {text_of(config.stages)} is for --pipeline; type that as well, or drop it")
    num_layers = len(config.hidden) + 1
    if config.pipeline > num_layers:
        raise InputError(
            f"--pipeline {config.pipeline}: the network has {num_layers} layers, and each stage needs one; type --pipeline "
            f"{num_layers} or less"
        )
    stages = config.stages
    if stages and (len(stages) != config.pipeline or sum(stages) != num_layers or min(stages) < 1):
        raise InputError(
            f"--stages {text_of(stages)}: --pipeline {config.pipeline} cuts {num_layers} layers into so many stages, of "
            "at least one each; type their numbers, as in 2,1, or drop the flag"
        )
    if who := divided(config):
        _check_divided(config, who)


def divided(config: Config) -> str:
    """Returns the flag by which ranks have a part of the params each; empty: all have all."""
    return "--tensor" if config.tensor > 1 else "--pipeline" if config.pipeline > 1 else ""


def _check_divided(config: Config, who: str) -> None:
    """Refuses what needs all params on each rank."""
    if config.sync != "every-step":
        raise InputError(
            f"{who}: with --sync {config.sync} each rank updates all params by itself; drop one of the two"
        )
    if WIRES[config.wire].kind is Kind.COMPRESSOR:
        raise InputError(f"{who}: --wire {config.wire} sums whole vectors, and ranks have parts; drop one of the two")
    if config.exchange == "two-level":
        raise InputError(f"{who}: sums of gradients are flat then; type --exchange flat")
