"""The check of a configuration: each value alone, and values against each other."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ddpgd.comm.wires import WIRES
from ddpgd.config import elastic, exchange, federated, grid, machine, network, optimization
from ddpgd.config.federated import FEDERATED_OPTIONS
from ddpgd.config.option import ALL
from ddpgd.config.schema import MUTUALLY_EXCLUSIVE, OPTIONS, Config, flag
from ddpgd.data.augmentations import AUGMENTATIONS
from ddpgd.errors import InputError
from ddpgd.model.network import LOSSES
from ddpgd.optim.rules import RULES
from ddpgd.optim.schedules import SCHEDULES


def _owned(option: str, rows: Iterable[Any]) -> dict[tuple[str, tuple[str, ...]], tuple[str, ...]]:
    """Returns the options of a table's rows by `option` and the rows that have them."""
    owners: dict[str, tuple[str, ...]] = {}
    for row in rows:
        for name in row.options:
            owners[name] = (*owners.get(name, ()), row.name)
    return {(option, who): tuple(name for name in owners if owners[name] == who) for who in owners.values()}


_REQUIRES: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {
    **_owned("wire", WIRES.values()),
    **_owned("schedule", SCHEDULES.values()),
    **_owned("augment", AUGMENTATIONS.values()),
    **{("loss", (name,)): loss.options for name, loss in LOSSES.items() if loss.options},
    ("sync", ("local",)): ("local_steps", "local_after"),
    ("sync", ("local", "federated")): ("outer_lr", "outer_momentum"),
    ("sync", ("federated",)): FEDERATED_OPTIONS,
}
"""Options that have no effect without one of some values of another."""

_HUGE = 2**53
_RANGES: dict[str, tuple[float, float, str]] = {
    "epochs": (1, _HUGE, "at least 1"),
    "steps": (1, _HUGE, "at least 1"),
    "validation": (0, 2**31, "at least 0"),
    "patience": (1, _HUGE, "at least 1"),
    "until_grad_norm": (1e-300, math.inf, "above 0"),
    "until_loss_fall": (1e-9, 1.0, "above 0 and at most 1, as in 0.01"),
    "until_accuracy": (1e-9, 1.0, "above 0 and at most 1, as in 0.98"),
    "max_time": (1e-9, math.inf, "above 0 seconds"),
    "hang_timeout": (0, math.inf, "at least 0 seconds"),
    "evaluate_every": (1, _HUGE, "at least 1"),
    "checkpoint_every": (1, _HUGE, "at least 1"),
    "check_every": (0, _HUGE, "at least 0"),
    "log_every": (1, _HUGE, "at least 1"),
    **network.RANGES,
    **optimization.RANGES,
    **machine.RANGES,
    **federated.RANGES,
}


def validate(config: Config) -> None:
    """InputError for the first value that is out of range or contradicts another; the line says what to type."""
    check_ranges(config)
    _validate_together(config)


def check_ranges(config: Config) -> None:
    """InputError for the first value that is out of range."""
    for name, (lowest, highest, text) in _RANGES.items():
        value = getattr(config, name)
        if value not in (None, ALL) and not lowest <= value <= highest:
            raise InputError(f"{flag(name)} {value}: must be {text}")
    if any(not 1 <= width <= 1_000_000 for width in config.hidden):
        raise InputError(f"--hidden {','.join(map(str, config.hidden))}: each width must be 1 to 1000000")


def _validate_together(config: Config) -> None:
    for first, second in MUTUALLY_EXCLUSIVE:
        if getattr(config, first) is not None and getattr(config, second) is not None:
            raise InputError(f"{flag(first)} and {flag(second)} say the same in two ways; type one of them")
    _raise_first(network.refusals(config))
    if config.patience is not None and not config.validation:
        raise InputError("--patience: test samples must not decide when to stop; type --validation 5000 as well")
    _check_owners(config)
    _raise_first(exchange.refusals(config))
    _raise_first(optimization.refusals(config))
    grid.check(config)
    _raise_first(elastic.refusals(config))
    if config.record and config.sync != "every-step":
        raise InputError(f"--record is for steps whose gradients are summed; drop it, or --sync {config.sync}")
    if config.scale_lr is not None:
        _validate_scale_lr(config.scale_lr)
    if config.ranks is not None and config.transport != "threads":
        raise InputError(
            "--ranks counts threads; type --transport threads with it, or start ranks with mpirun -n or RANKS=4 launch/local.sh"
        )
    if config.transport == "threads" and config.ranks is None:
        raise InputError("--transport threads needs a number of ranks; type for example --ranks 4")


def check_rule_has(optimizer: str, names: Iterable[str]) -> None:
    """Raises InputError for the first of `names` that is a hyper-parameter of other update rules alone."""
    for name in names:
        owners = [rule.name for rule in RULES.values() if name in rule.options]
        if owners and optimizer not in owners:
            raise InputError(
                f"{flag(name)} has no effect: --optimizer {optimizer} has no {name}; drop it, or type --optimizer "
                f"{' or '.join(owners)}"
            )


def changed(given: Mapping[str, Any]) -> list[str]:
    """Returns the options that have other values than their defaults; a run's config.toml holds all others, too."""
    return [name for name, value in given.items() if value != OPTIONS[name].default]


def _check_owners(config: Config) -> None:
    """Refuses the first option that has no effect without a value of another."""
    for (name, wanted), belonging in _REQUIRES.items():
        for other in belonging:
            if getattr(config, name) not in wanted and getattr(config, other) != OPTIONS[other].default:
                raise InputError(
                    f"{flag(other)} is for {flag(name)} {' or '.join(wanted)}; type that as well, or drop it"
                )


def _raise_first(faults: Iterable[tuple[bool, str]]) -> None:
    """InputError with the line of the first fault that is one."""
    for is_wrong, line in faults:
        if is_wrong:
            raise InputError(line)


def _validate_scale_lr(rule: str) -> None:
    kind, _, base = rule.partition(":")
    if kind not in ("linear", "sqrt") or not base.isdecimal() or int(base) == 0:
        raise InputError(f"--scale-lr {rule}: type linear:BASE_BATCH or sqrt:BASE_BATCH, as in linear:256")
