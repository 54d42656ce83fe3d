"""The configuration of a run: one frozen dataclass, from which flags, TOML files, checkpoints and help are generated.

`parsing.coerce` converts a single value, `validation.validate` checks values together, `resolve` fills in defaults.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ddpgd.config.federated import DEFAULT_ROUNDS, FederatedOptions, client_lr
from ddpgd.config.machine import MachineOptions
from ddpgd.config.network import NetworkOptions
from ddpgd.config.optimization import OptimizerOptions
from ddpgd.config.option import ALL, fixed_option, option
from ddpgd.config.parsing import coerce
from ddpgd.errors import InputError, shown
from ddpgd.optim.rules import RULES


@dataclass(frozen=True, kw_only=True)
class Config(FederatedOptions, MachineOptions, OptimizerOptions, NetworkOptions):
    """A training run. Every field is a flag of `ddpgd train`, with `_` written as `-`.

    Values are checked when training starts, not here. NumPy's numbers, lists and paths are accepted.

    >>> config = Config(data="synthetic", hidden=(16,), steps=20)
    >>> config.global_batch is None, config.micro_batch
    (True, 64)
    """

    data: str | None = option(
        None,
        "data",
        "folder with MNIST's IDX files, or 'synthetic' (default: $DDPGD_DATA, the cache, or a download)",
        Path,
    )
    validation: int = fixed_option(
        0,
        "data",
        "training samples to hold out: evaluations are on them, and checkpoints/best has the weights that do best there",
        int,
    )

    run_dir: str | None = option(
        None, "run", "folder for records and checkpoints (default: a new one under runs/)", Path
    )
    resume: str | None = option(
        None,
        "run",
        "resume from this checkpoint or run folder; without a value, from the newest checkpoint in --run-dir",
        Path,
        bare="",
    )
    evaluate_every: int | None = option(None, "run", "steps between evaluations (default: once an epoch)", int)
    checkpoint_every: int | None = option(None, "run", "steps between checkpoints (default: at the end)", int)
    log_every: int = option(100, "run", "steps between records in metrics.jsonl", int)
    check_every: int | None = option(
        None,
        "run",
        "steps between comparisons of what ranks hold in common; 0: never (default: 100; on GPUs 1000)",
        int,
    )
    heal: bool = option(False, "run", "give a rank that holds other bits than most what those hold, and go on", bool)
    record: bool = option(
        False,
        "run",
        "record checksums of every step in RUN/record, for `ddpgd bisect`: what differs first, and where",
        bool,
    )
    elastic: bool = option(
        False, "run", "go on without ranks that die, from the step before; start with mpirun --with-ft ulfm", bool
    )
    quiet: bool = option(False, "run", "print errors only", bool)
    tensorboard: bool = option(False, "run", "write TensorBoard event files too, to RUN/tensorboard", bool)

    epochs: int | None = option(None, "length", "passes over the training samples (default: 10)", int)
    steps: int | None = option(None, "length", "number of updates, instead of --epochs", int)
    until_accuracy: float | None = option(
        None,
        "length",
        "stop at the first evaluation that reaches this accuracy, as in 0.98: of validation samples, or else of test samples",
        float,
    )
    patience: int | None = option(
        None, "length", "with --validation: stop after so many evaluations without a better one", int
    )
    until_grad_norm: float | None = option(
        None, "length", "stop at the first record whose norm of the mean gradient is at most this", float
    )
    until_loss_fall: float | None = option(
        None,
        "length",
        "stop after the first epoch whose training loss is not below the one before by this fraction, as in 0.01",
        float,
    )
    inject: str | None = option(
        None,
        "run",
        "faults on purpose, to see what becomes of them: KIND@RANK:STEP,... as in hang@1:40 (docs/failures.md)",
    )
    max_time: float | None = option(
        None, "length", "seconds after which to write a checkpoint and exit with code 75", float
    )
    hang_timeout: float = option(
        30.0,
        "run",
        "seconds without any movement of a rank after which a run tells where each is, and ends with code 5; 0: it waits",
        float,
    )


MUTUALLY_EXCLUSIVE = (("epochs", "steps"), ("rounds", "steps"), ("rounds", "epochs"), ("global_batch", "accumulate"))
"""Pairs of options that set the same thing, of which only one may be given."""

_GROUPS = ("data", "run", "length", "network", "batch", "augmentation", "optimizer", "machine", "exchange", "federated")

OPTIONS: Mapping[str, Field[Any]] = {
    one.name: one for one in sorted(fields(Config), key=lambda one: _GROUPS.index(one.metadata["group"]))
}
"""The fields by name, in the order of their groups."""


def _field_doc(field: Field[Any]) -> str:
    """Returns one line on a field: name, type, default, help text."""
    choices = field.metadata["choices"]
    kind = f"one of {', '.join(choices)}" if choices else field.metadata["kind"].__name__
    default = "" if field.default is None else f", default {field.default!r}"
    return f"        {field.name} ({kind}{default}): {field.metadata['help']}.\n"


Config.__doc__ = f"{Config.__doc__}\n    Attributes:\n{''.join(map(_field_doc, OPTIONS.values()))}    "


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def text_of(value: Any) -> str:
    """Returns the value of an option as its flag takes it."""
    return ",".join(map(str, value)) or "0" if isinstance(value, tuple) else str(value)


def to_table(config: Config) -> dict[str, Any]:
    """Returns `config` as a TOML or JSON table, without fields that are None."""
    table = {name: getattr(config, name) for name in OPTIONS if getattr(config, name) is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in table.items()}


def from_table(table: Mapping[str, Any]) -> Config:
    """The inverse of `to_table`. InputError: an option that this version does not know."""
    unknown = table.keys() - OPTIONS.keys()
    if unknown:
        raise InputError(
            f"written by another version of ddpgd, with the option {shown(min(unknown))}; use that version"
        )
    return Config(**{name: coerce(OPTIONS[name], value, name) for name, value in table.items()})


def global_batch(config: Config) -> int:
    """Returns the global batch of a resolved configuration that has one."""
    assert isinstance(config.global_batch, int), "resolve() was not called"
    return config.global_batch


def resolve(config: Config, world_size: int, num_samples: int | None = None) -> Config:
    """Returns `config` with defaults filled in, and the global batch as a number.

    --accumulate makes it W * accumulate * micro_batch, and "all" the training samples, `num_samples`. With --sync federated
    a step is a round, and there is no global batch.
    """
    if config.lr is None:
        lr = client_lr(config) if config.sync == "federated" else RULES[config.optimizer].lr
        config = replace(config, lr=lr)
    if config.sync == "federated":
        return replace(config, steps=config.rounds or config.steps or DEFAULT_ROUNDS, rounds=None)
    if config.accumulate is not None:
        config = replace(config, global_batch=world_size * config.accumulate * config.micro_batch, accumulate=None)
    if config.global_batch == ALL:
        assert num_samples is not None, "the data are not known yet"
        config = replace(config, global_batch=num_samples)
    if config.global_batch is None:
        config = replace(config, global_batch=max(256, config.micro_batch))
    if config.epochs is None and config.steps is None:
        config = replace(config, epochs=10)
    return config
