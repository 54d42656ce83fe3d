"""Validate a configuration, alone or against a checkpoint."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ddpgd.comm.wires import WIRES, Kind
from ddpgd.config import elastic, federated, grid, machine, network, optimization
from ddpgd.config.federated import FEDERATED_OPTIONS
from ddpgd.config.option import ALL
from ddpgd.config.schema import MUTUALLY_EXCLUSIVE, OPTIONS, Config, flag, text_of
from ddpgd.data.augmentations import AUGMENTATIONS
from ddpgd.errors import InputError
from ddpgd.model.network import LOSSES
from ddpgd.optim.rules import RULES
from ddpgd.optim.schedules import SCHEDULES

PER_LAUNCH = (
    *(
        "resume",
        "max_time",
        "hang_timeout",
        "inject",
        "check_every",
        "heal",
        "elastic",
        "record",
        "quiet",
        "backend",
        "replay",
        "share_gpu",
        "transport",
        "ranks",
    ),
    *("shard_optimizer", "overlap", "tensor", "pipeline", "pipeline_schedule", "stages"),
)
"""Options that say how one start goes, not what the run is: a resume begins with their defaults."""


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

_LENGTHS = ("epochs", "steps", "rounds")
"""Lengths of a run, of which one is set."""

_ENDS = (*_LENGTHS, "until_accuracy", "patience", "until_grad_norm", "until_loss_fall")
"""Options that end a run: a new length takes the place of all of them that are not given again."""

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


def continued(saved: Config, given: Mapping[str, Any], world_size: int) -> Config:
    """The configuration of a resumed run: `saved`, with what is `given` now. InputError: that changes the weights.

    --accumulate may be given again, as by a job that is started again, where it makes the same global batch.
    """
    given = dict(given)
    if accumulate := given.pop("accumulate", None):
        now = world_size * accumulate * saved.micro_batch
        if now != saved.global_batch:
            raise InputError(
                f"--accumulate {accumulate}: makes a global batch of {now}, and the checkpoint was trained with "
                f"{saved.global_batch}, which going on keeps; drop it with --resume"
            )
    for name, value in given.items():
        before = getattr(saved, name)
        if (name, value) == ("global_batch", ALL):
            continue  # see check_same_batch
        if value != before and (
            OPTIONS[name].metadata["fixed"] or (name == "exchange" and _rounds_apart(saved, value))
        ):
            raise InputError(
                f"{flag(name)} {text_of(value)}: the checkpoint was trained with {text_of(before)}, and going on keeps that; "
                "drop the flag, or start a new run without --resume"
            )
    length = {} if given.keys().isdisjoint(_LENGTHS) else dict.fromkeys(_ENDS)
    this_start = {name: OPTIONS[name].default for name in PER_LAUNCH}
    return replace(saved, **{**length, **this_start, **given})


def check_same_batch(saved: Config, now: Config) -> None:
    """InputError: the global batch "all", a number now that the data are known, is not the one of the checkpoint."""
    if now.global_batch != saved.global_batch:
        raise InputError(
            f"--global-batch {ALL}: the checkpoint was trained with {saved.global_batch} of {now.global_batch}, and going on "
            "keeps that; drop the flag, or start a new run without --resume"
        )


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
    wire = WIRES[config.wire]
    if wire.kind is not Kind.EXACT and config.reduce == "fast":
        raise InputError(
            f"--reduce fast hands sums to the MPI library, which does not know --wire {config.wire}; type --reduce ordered"
        )
    _check_owners(config)
    _validate_exchange(config)
    _raise_first(optimization.refusals(config))
    grid.check(config)
    _raise_first(elastic.refusals(config))
    if config.record and config.sync != "every-step":
        raise InputError(f"--record is for steps whose gradients are summed; drop it, or --sync {config.sync}")
    if config.error_feedback and wire.kind is Kind.EXACT:
        raise InputError(f"--error-feedback has no effect: --wire {config.wire} loses nothing; type --wire float16")
    if config.scale_lr is not None:
        _validate_scale_lr(config.scale_lr)
    if config.ranks is not None and config.transport != "threads":
        raise InputError(
            "--ranks counts threads; type --transport threads with it, or start ranks with mpirun -n or RANKS=4 launch/local.sh"
        )
    if config.transport == "threads" and config.ranks is None:
        raise InputError("--transport threads needs a number of ranks; type for example --ranks 4")


def form(config: Config) -> str:
    """Returns the value of --exchange that counts: "auto" only for sums whose bits are the same in every form."""
    has_forms = WIRES[config.wire].kind is Kind.EXACT and config.reduce == "ordered" and not grid.divided(config)
    return "flat" if config.exchange == "auto" and not has_forms else config.exchange


def _rounds_apart(saved: Config, exchange: str) -> bool:
    """True if the wire of a run rounds other values in the form of another `exchange` than in its own."""
    return WIRES[saved.wire].kind is Kind.BLOCK_SCALED and "two-level" in (saved.exchange, exchange)


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


def _validate_exchange(config: Config) -> None:
    """Refuses options that contradict each other in the exchange: compressors, local steps, error feedback."""
    if config.sync == "federated":
        _validate_federated(config)
    if config.shard_optimizer == "on" and config.sync != "every-step":
        raise InputError(
            f"--shard-optimizer: with --sync {config.sync} each rank updates all params by itself; drop one of the two"
        )
    if config.exchange == "two-level" and (config.reduce == "fast" or WIRES[config.wire].kind is Kind.COMPRESSOR):
        who = "--reduce fast" if config.reduce == "fast" else f"--wire {config.wire}"
        raise InputError(f"--exchange two-level: {who} sums whole vectors of all ranks at once; type --exchange flat")
    keeps = WIRES[config.wire].keeps_residuals
    if keeps and config.error_feedback:
        raise InputError(f"--error-feedback: --wire {config.wire} keeps residuals in any case; drop the flag")
    if WIRES[config.wire].takes_momentum and config.sync == "every-step" and not RULES[config.optimizer].behind_top_k:
        others = [rule.name for rule in RULES.values() if rule.behind_top_k]
        raise InputError(
            f"--optimizer {config.optimizer}: --wire {config.wire} takes over plain momentum alone; type --optimizer "
            f"{', '.join(others[:-1])} or {others[-1]}"
        )
    if not keeps and config.sync == "every-step":
        return
    who = f"--wire {config.wire}" if keeps else f"--sync {config.sync}"
    if config.precision == "float16":
        raise InputError(
            f"--precision float16 changes its loss scale, which {who} cannot follow; type --precision bfloat16"
        )
    if config.non_finite == "skip":
        raise InputError(f"--non-finite skip cannot undo what {who} has kept on one rank; type --non-finite stop")


def _validate_federated(config: Config) -> None:
    """Refuses what clients cannot do, or have no use for."""
    if WIRES[config.wire].kind is Kind.COMPRESSOR or config.error_feedback:
        what = "--error-feedback" if config.error_feedback else f"--wire {config.wire}"
        raise InputError(
            f"{what}: residuals would have to wait until a client is asked again; type --wire int8 without feedback"
        )
    _raise_first(federated.refusals(config))


def _raise_first(faults: Iterable[tuple[bool, str]]) -> None:
    """InputError with the line of the first fault that is one."""
    for is_wrong, line in faults:
        if is_wrong:
            raise InputError(line)


def _validate_scale_lr(rule: str) -> None:
    kind, _, base = rule.partition(":")
    if kind not in ("linear", "sqrt") or not base.isdecimal() or int(base) == 0:
        raise InputError(f"--scale-lr {rule}: type linear:BASE_BATCH or sqrt:BASE_BATCH, as in linear:256")
