"""The options of --sync federated, and what they refuse."""

from dataclasses import dataclass
from typing import Any, Literal

from ddpgd.config.option import ALL, IntOrAll, fixed_option, option
from ddpgd.optim.rules import ELEMENTWISE, RULES

DEFAULT_ROUNDS = 100


@dataclass(frozen=True, kw_only=True)
class FederatedOptions:
    """The options of --sync federated, each a flag of `ddpgd train`."""

    rounds: int | None = option(None, "federated", f"number of rounds (default: {DEFAULT_ROUNDS})", int)
    clients: int = fixed_option(100, "federated", "number of clients", int)
    client_fraction: float = fixed_option(0.1, "federated", "fraction of the clients that train in a round", float)
    local_epochs: int = fixed_option(5, "federated", "passes of a client over its samples in a round", int)
    client_batch: int | Literal["all"] = fixed_option(
        10, "federated", f"samples in a step of a client, or {ALL} that it has", IntOrAll
    )
    partition: str = fixed_option(
        "iid",
        "federated",
        "division of the samples: iid, shards:2 (classes a client, about), dirichlet:0.3, or sizes:lognormal:1.0",
    )
    client_weights: Literal["samples", "equal"] = fixed_option(
        "samples", "federated", "weights of clients in the mean: their samples, or equal", choices=("samples", "equal")
    )
    proximal: float = fixed_option(0.0, "federated", "pull of clients towards the global params: FedProx's mu", float)
    server_optimizer: str = fixed_option(
        "sgd",
        "federated",
        "update rule of the server, with --outer-lr and --outer-momentum",
        choices=tuple(ELEMENTWISE),
    )
    drop: float = fixed_option(0.0, "federated", "probability that a client's update does not arrive", float)
    stragglers: float = fixed_option(
        0.0, "federated", "probability that a client makes fewer than --local-epochs passes", float
    )
    dp_clip: float = fixed_option(
        0.0, "federated", "largest norm of a client's change, which then counts as much as another; 0: any", float
    )
    dp_noise: float = fixed_option(
        0.0, "federated", "standard deviation of the noise on the sum of changes, in units of --dp-clip", float
    )
    dp_delta: float = fixed_option(
        1e-5, "federated", "with --dp-noise: probability with which the epsilon that is told may be exceeded", float
    )
    client_figures: Literal["on", "off"] = option(
        "on",
        "federated",
        "at evaluations, loss and accuracy over the samples of each client too",
        choices=("on", "off"),
    )
    secure_aggregation: bool = fixed_option(
        False, "federated", "mask each client's change, so that the server can read their sum alone", bool
    )


def client_lr(config: Any) -> float:
    """Returns the default learning rate of clients; smaller with momentum, with which steps of small batches diverge."""
    rule = RULES[config.optimizer]
    factor = 1 - config.momentum if "momentum" in rule.options else 1
    return float(f"{rule.lr * factor:.12g}")  # 0.01, not 0.009999999999999998


FEDERATED_OPTIONS = tuple(FederatedOptions.__dataclass_fields__)
"""Their names."""

RANGES: dict[str, tuple[float, float, str]] = {
    "rounds": (1, 2**53, "at least 1"),
    "clients": (1, 2**20, "1 to 2^20"),
    "client_fraction": (1e-9, 1, "above 0 and at most 1, as in 0.1"),
    "local_epochs": (1, 2**20, "1 to 2^20"),
    "client_batch": (1, 2**24, "1 to 2^24, or all"),
    "proximal": (0, float("inf"), "at least 0"),
    "dp_clip": (0, 1e12, "0 to 1e12"),
    "dp_noise": (0, 1e6, "0 to 1e6"),
    "dp_delta": (1e-300, 0.5, "above 0 and at most 0.5, as in 1e-5"),
    "drop": (0, 1, "0 to 1"),
    "stragglers": (0, 1, "0 to 1"),
}
"""The lowest and highest value of numbers, and both in words."""


def refusals(config: Any) -> list[tuple[bool, str]]:
    """Returns pairs of a fault and its line, of a configuration with --sync federated, in which wire kinds are checked."""
    momentum_rules = [rule.name for rule in RULES.values() if "momentum" in rule.options]
    no_momentum = config.server_optimizer not in momentum_rules
    return [
        (config.epochs is not None, "--epochs: a federated run is counted in rounds; type --rounds 100"),
        (
            config.global_batch is not None or config.accumulate is not None,
            f"--{'global-batch' if config.accumulate is None else 'accumulate'}: with --sync federated each client has its "
            "own steps; type --client-batch 10",
        ),
        (config.scale_lr is not None, "--scale-lr: with --sync federated there is no global batch; drop it"),
        (
            config.outer_momentum > 0 and no_momentum,
            f"--outer-momentum: --server-optimizer {config.server_optimizer} has no momentum; type --server-optimizer "
            f"{' or '.join(momentum_rules)}",
        ),
        (
            config.stragglers > 0 and config.local_epochs == 1,
            "--stragglers: with --local-epochs 1 no client can do less; type --local-epochs 2 or more",
        ),
        (
            config.dp_noise > 0 and not config.dp_clip,
            "--dp-noise: changes of any size need any noise; type --dp-clip 1",
        ),
        (
            config.secure_aggregation and config.wire != "float32",
            f"--secure-aggregation: masked changes are whole numbers of 32 bits, not --wire {config.wire}; drop one of the two",
        ),
    ]
