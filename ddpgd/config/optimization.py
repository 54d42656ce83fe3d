"""The options of update rules, schedules and bounds of the gradient, and what they refuse."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from ddpgd.comm.wires import WIRES
from ddpgd.config.option import fixed_option
from ddpgd.config.units import enumerated
from ddpgd.optim.rules import RULES
from ddpgd.optim.schedules import PLATEAU, SCHEDULES

_HUGE = 2**53
_MOMENTUM = 0.9
_CYCLE = 0.95, 0.85
"""The highest and the lowest momentum of one-cycle."""


def _rates() -> str:
    """Returns the rules' default learning rates in words."""
    rates: dict[float, list[str]] = {}
    for rule in RULES.values():
        rates.setdefault(rule.lr, []).append(rule.name)
    return ", ".join(f"{rate:g} of {enumerated(names)}" for rate, names in rates.items())


def _rules_with(option: str) -> str:
    """Returns the rules that have a hyper-parameter from this option, in words."""
    return enumerated([rule.name for rule in RULES.values() if option in rule.options])


def _rules_with_momentum() -> str:
    """Returns the rules whose momentum a schedule may cycle, in words."""
    return enumerated([rule.name for rule in RULES.values() if rule.momentum])


def _decoupled() -> str:
    """Returns the rules whose weight decay is decoupled, in words."""
    return enumerated([rule.name for rule in RULES.values() if rule.decoupled])


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Options of how params are updated, each a flag of `ddpgd train`."""

    optimizer: str = fixed_option("momentum", "optimizer", "update rule", choices=tuple(RULES))
    lr: float | None = fixed_option(
        None,
        "optimizer",
        f"learning rate (default: the update rule's: {_rates()}; with --sync federated times 1 - momentum)",
        float,
    )
    momentum: float = fixed_option(_MOMENTUM, "optimizer", f"momentum of --optimizer {_rules_with('momentum')}", float)
    schedule: str = fixed_option("cosine", "optimizer", "learning-rate schedule", choices=tuple(SCHEDULES))
    restarts: int = fixed_option(
        3, "optimizer", "with --schedule restarts: how often the learning rate begins anew", int
    )
    drops: int = fixed_option(
        2, "optimizer", "with --schedule step: how often, at equal distances, the learning rate drops", int
    )
    drop_factor: float = fixed_option(0.1, "optimizer", "with --schedule step: factor of each drop", float)
    end_factor: float = fixed_option(0.01, "optimizer", "with --schedule exponential: factor at the end", float)
    rise_fraction: float = fixed_option(
        0.3, "optimizer", "with --schedule one-cycle: fraction of the steps in which the learning rate rises", float
    )
    div_factor: float = fixed_option(
        25.0, "optimizer", "with --schedule one-cycle: --lr over the learning rate at the start", float
    )
    final_div_factor: float = fixed_option(
        1e4, "optimizer", "with --schedule one-cycle: learning rate at the start over that at the end", float
    )
    max_momentum: float = fixed_option(
        _CYCLE[0],
        "optimizer",
        f"with --schedule one-cycle: momentum at start and end, of {_rules_with_momentum()}",
        float,
    )
    min_momentum: float = fixed_option(
        _CYCLE[1], "optimizer", "with --schedule one-cycle: momentum where the learning rate is --lr", float
    )
    plateau_factor: float = fixed_option(
        0.1, "optimizer", "with --schedule reduce-on-plateau: factor on the learning rate", float
    )
    plateau_patience: int = fixed_option(
        5, "optimizer", "with --schedule reduce-on-plateau: evaluations without a better loss before that", int
    )
    plateau_threshold: float = fixed_option(
        1e-4, "optimizer", "with --schedule reduce-on-plateau: fraction by which a better loss is lower", float
    )
    warmup: int = fixed_option(0, "optimizer", "steps of linear warm-up", int)
    scale_lr: str | None = fixed_option(
        None, "optimizer", "scale --lr with the global batch: linear:BASE_BATCH or sqrt:BASE_BATCH"
    )
    weight_decay: float = fixed_option(
        0.0005,
        "optimizer",
        f"L2 penalty: this factor times the params joins the gradient; with {_decoupled()} it shrinks the params apart from it",
        float,
    )
    clip_norm: float = fixed_option(0.0, "optimizer", "largest norm of the mean gradient; 0: no clipping", float)
    clip_value: float = fixed_option(
        0.0, "optimizer", "largest magnitude of an element of the mean gradient; 0: no clipping", float
    )
    max_norm: float = fixed_option(
        0.0, "optimizer", "largest norm of the weights into each hidden unit, after each update; 0: no limit", float
    )
    non_finite: Literal["stop", "skip"] = fixed_option(
        "stop", "optimizer", "what to do about a gradient with NaN or infinity", choices=("stop", "skip")
    )


RANGES: dict[str, tuple[float, float, str]] = {
    "lr": (1e-300, math.inf, "above 0"),
    "momentum": (0, 1 - 1e-9, "at least 0 and below 1"),
    "restarts": (1, _HUGE, "at least 1"),
    "drops": (1, _HUGE, "at least 1"),
    "drop_factor": (1e-9, 1, "above 0 and at most 1, as in 0.1"),
    "rise_fraction": (1e-9, 1 - 1e-9, "above 0 and below 1, as in 0.3"),
    "div_factor": (1, 1e9, "at least 1, as in 25"),
    "final_div_factor": (1, 1e9, "at least 1, as in 10000"),
    "max_momentum": (1e-9, 1 - 1e-9, "above 0 and below 1, as in 0.95"),
    "min_momentum": (1e-9, 1 - 1e-9, "above 0 and below 1, as in 0.85"),
    "plateau_factor": (1e-9, 1, "above 0 and at most 1, as in 0.1"),
    "plateau_patience": (1, _HUGE, "at least 1"),
    "plateau_threshold": (0, 1, "0 to 1, as in 0.0001"),
    "end_factor": (1e-9, 1, "above 0 and at most 1, as in 0.01"),
    "warmup": (0, _HUGE, "at least 0"),
    "weight_decay": (0, math.inf, "at least 0"),
    "clip_norm": (0, math.inf, "at least 0"),
    "clip_value": (0, math.inf, "at least 0"),
    "max_norm": (0, math.inf, "at least 0"),
}
"""The lowest and highest value of numbers, and both in words."""


def refusals(config: Any) -> list[tuple[bool, str]]:
    """Returns pairs of a fault and its line, of a configuration whose numbers are in their ranges."""
    cycles = SCHEDULES[config.schedule].momentum is not None
    wire_has_momentum = WIRES[config.wire].takes_momentum and config.optimizer == "momentum"
    return [
        (
            config.clip_value > 0 and config.clip_norm > 0,
            "--clip-value and --clip-norm both bound the gradient; type one of them",
        ),
        (
            config.clip_value > 0 and bool(RULES[config.optimizer].companion),
            f"--clip-value: --optimizer {config.optimizer} orthogonalises whole matrices; type --clip-norm 1",
        ),
        (
            config.clip_value > 0 and wire_has_momentum,
            f"--clip-value: --wire {config.wire} adds the momentum before ranks sum; type --clip-norm 1",
        ),
        (
            config.schedule == PLATEAU and config.sync == "federated",
            f"--schedule {PLATEAU}: clients begin anew in each round; type --schedule step",
        ),
        (
            config.schedule == PLATEAU and not config.validation,
            f"--schedule {PLATEAU}: test samples must not decide about training; type --validation 5000 as well",
        ),
        (
            config.until_grad_norm is not None and config.sync != "every-step",
            f"--until-grad-norm: with --sync {config.sync} there is no gradient of all ranks; type --until-loss-fall 0.01",
        ),
        (
            bool(RULES[config.optimizer].companion) and not config.hidden,
            f"--optimizer {config.optimizer}: --hidden 0 has no hidden weight matrices; type --optimizer "
            f"{RULES[config.optimizer].companion}",
        ),
        (
            cycles and config.momentum != _MOMENTUM,
            f"--momentum: --schedule {config.schedule} cycles it; type --max-momentum and --min-momentum",
        ),
        (
            (config.max_momentum, config.min_momentum) != _CYCLE and not RULES[config.optimizer].momentum,
            f"--{'max' if config.max_momentum != _CYCLE[0] else 'min'}-momentum: --optimizer {config.optimizer} has no "
            "momentum that could cycle; drop it, or type --optimizer momentum",
        ),
        (
            cycles and config.warmup > 0,
            f"--warmup: --schedule {config.schedule} begins with a rise; drop it, or type --rise-fraction 0.3",
        ),
        (
            cycles and config.min_momentum > config.max_momentum,
            f"--min-momentum {config.min_momentum} is more than --max-momentum {config.max_momentum}; type less",
        ),
        (
            cycles and wire_has_momentum,
            f"--schedule {config.schedule}: --wire {config.wire} has a momentum of its own, which does not cycle; "
            "type --optimizer sgd",
        ),
    ]
