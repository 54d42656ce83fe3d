"""What a run is: one frozen dataclass, from which flags, TOML files, checkpoints and `--help` are generated.

What a value must look like stands in `coerce`; which values go together, in `rules`; what follows, in `resolve`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ddpgd.comm.transports.capabilities import TRANSPORTS
from ddpgd.config.parsing import coerce, did_you_mean
from ddpgd.errors import InputError


def _option(
    default: Any, group: str, text: str, kind: type = str, choices: tuple[str, ...] = (), fixed: bool = False
) -> Any:
    """A field with what its flag needs. `fixed`: part of what defines the weights, so a resumed run may not change it."""
    metadata = {"group": group, "help": text, "kind": kind, "choices": choices, "fixed": fixed}
    return field(default=default, metadata=metadata)


def _fixed(default: Any, group: str, text: str, kind: type = str, choices: tuple[str, ...] = ()) -> Any:
    return _option(default, group, text, kind, choices, fixed=True)


@dataclass(frozen=True)
class Config:
    """A training run. Every field is a flag of `ddpgd train`; None: not given."""

    data: str | None = _option(
        None, "data", "folder with MNIST's IDX files, or 'synthetic' (default: $DDPGD_DATA, the cache, or a download)"
    )
    run_dir: str | None = _option(None, "run", "folder for records and checkpoints (default: a new one under runs/)")
    resume: str | None = _option(
        None, "run", "go on from this checkpoint or run folder; without a value, from the latest in --run-dir"
    )
    evaluate_every: int | None = _option(None, "run", "steps between evaluations (default: once an epoch)", int)
    checkpoint_every: int | None = _option(None, "run", "steps between checkpoints (default: at the end)", int)
    log_every: int = _option(100, "run", "steps between records in metrics.jsonl", int)
    quiet: bool = _option(False, "run", "print nothing but errors", bool)
    tensorboard: bool = _option(False, "run", "write event files of TensorBoard as well", bool)

    epochs: int | None = _option(None, "length", "passes over the training samples (default: 10)", int)
    steps: int | None = _option(None, "length", "updates, instead of --epochs", int)
    until_accuracy: float | None = _option(
        None, "length", "end at the first evaluation with this test accuracy, as in 0.98", float
    )
    max_time: float | None = _option(
        None, "length", "seconds after which to write a checkpoint and leave with exit code 75", float
    )

    hidden: tuple[int, ...] = _fixed((512,), "network", "widths of the hidden layers, as in 512,512; 0: none", tuple)
    activation: str = _fixed("relu", "network", "what follows a hidden layer", choices=("relu", "tanh", "sigmoid"))
    init: str = _fixed("he", "network", "distribution of the first weights", choices=("he", "xavier"))
    loss: str = _fixed("cross-entropy", "network", "what is minimised", choices=("cross-entropy", "mse"))
    seed: int = _fixed(0, "network", "seed of first weights and data order", int)

    global_batch: int | None = _fixed(None, "batch", "samples per update, over all ranks (default: 256)", int)
    micro_batch: int = _fixed(64, "batch", "samples in one forward and backward pass", int)
    accumulate: int | None = _option(
        None, "batch", "instead of --global-batch: micro-batches per rank and update, at the first start", int
    )

    optimizer: str = _fixed("momentum", "optimizer", "update rule", choices=("sgd", "momentum", "nesterov", "adam"))
    lr: float = _fixed(0.1, "optimizer", "learning rate", float)
    momentum: float = _fixed(0.9, "optimizer", "factor of --optimizer momentum and nesterov", float)
    schedule: str = _fixed("cosine", "optimizer", "learning rate over the run", choices=("constant", "cosine"))
    warmup: int = _fixed(0, "optimizer", "steps of linear warm-up", int)
    scale_lr: str | None = _fixed(
        None, "optimizer", "scale --lr to the global batch by linear:BASE_BATCH or sqrt:BASE_BATCH"
    )
    weight_decay: float = _fixed(0.0005, "optimizer", "factor of the params that is added to the gradient", float)
    clip_norm: float = _fixed(0.0, "optimizer", "largest norm of the mean gradient; 0: any", float)
    non_finite: str = _fixed("stop", "optimizer", "what to do at a gradient with NaN or inf", choices=("stop", "skip"))

    backend: str = _option(
        "auto", "machine", "who computes: cupy on GPUs, numpy on CPUs", choices=("auto", "numpy", "cupy")
    )
    precision: str = _fixed(
        "float32",
        "machine",
        "of products: inputs of this type, sums in float32; all but float32 want a GPU",
        choices=("float32", "tf32", "float16", "bfloat16"),
    )
    share_gpu: bool = _option(False, "machine", "let several ranks of a node compute on one GPU", bool)
    transport: str = _option("auto", "machine", "how bytes travel", choices=("auto", *TRANSPORTS))
    ranks: int | None = _option(None, "machine", "number of ranks of --transport threads", int)
    wire: str = _fixed(
        "float32",
        "exchange",
        "what travels: values, 16 or 8 bits scaled by blocks; the largest alone; or products of narrow matrices",
        choices=("float32", "float16", "bfloat16", "int8", "topk", "powersgd"),
    )
    topk_density: float = _fixed(0.01, "exchange", "share of elements that --wire topk sends", float)
    topk_warmup: int = _fixed(0, "exchange", "epochs in which --wire topk sends more, fewer each epoch", int)
    topk_masking: bool = _fixed(False, "exchange", "of --wire topk: elements that are sent lose their momentum", bool)
    powersgd_rank: int = _fixed(2, "exchange", "columns of the narrow matrices of --wire powersgd", int)
    error_feedback: bool = _fixed(False, "exchange", "add what encoding lost to what is encoded next", bool)
    reduce: str = _fixed(
        "ordered",
        "exchange",
        "sum over ranks in canonical order, for the same bits on any number, or in the transport's own",
        choices=("ordered", "fast"),
    )
    sync: str = _fixed(
        "every-step",
        "exchange",
        "combine gradients every step, or, after some local steps, what ranks changed in their params",
        choices=("every-step", "local"),
    )
    local_steps: int = _fixed(8, "exchange", "steps of --sync local between two combinations", int)
    local_after: int = _fixed(0, "exchange", "first step of --sync local; before, gradients are combined", int)
    outer_lr: float = _fixed(1.0, "exchange", "of --sync local: learning rate for the mean change", float)
    outer_momentum: float = _fixed(0.0, "exchange", "of --sync local: Nesterov momentum for the mean change", float)


MUTUALLY_EXCLUSIVE = (("epochs", "steps"), ("global_batch", "accumulate"))
"""Pairs of options that say the same in two ways."""

OPTIONS: Mapping[str, Field[Any]] = {option.name: option for option in fields(Config)}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_toml(path: str) -> dict[str, Any]:
    """The options in a TOML file, each coerced. InputError: unreadable, not TOML, unknown name, or wrong value."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"--config {path}: cannot read it: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not TOML: {error}") from None
    for name in table:
        if name not in OPTIONS:
            near = did_you_mean(name, tuple(OPTIONS))
            raise InputError(f"--config {path}: there is no option {name!r}{near}; `ddpgd train --help` lists them")
    return {name: coerce(OPTIONS[name], value, f"--config {path}: {name}") for name, value in table.items()}


def to_table(config: Config) -> dict[str, Any]:
    """`config` as a TOML or JSON table: what is None is left out."""
    table = {name: value for name, value in asdict(config).items() if value is not None}
    return table | {"hidden": list(config.hidden)}


def from_table(table: Mapping[str, Any]) -> Config:
    """The inverse of `to_table`. InputError: an option that this version does not know."""
    unknown = table.keys() - OPTIONS.keys()
    if unknown:
        raise InputError(f"written by another version of ddpgd, with the option {min(unknown)!r}; use that version")
    return Config(**{name: coerce(OPTIONS[name], value, name) for name, value in table.items()})


def resolve(config: Config, world_size: int) -> Config:
    """`config` with defaults filled in and --accumulate turned into the global batch: W * accumulate * micro_batch."""
    if config.accumulate is not None:
        global_batch = world_size * config.accumulate * config.micro_batch
        config = replace(config, global_batch=global_batch, accumulate=None)
    if config.global_batch is None:
        config = replace(config, global_batch=max(256, config.micro_batch))
    if config.epochs is None and config.steps is None:
        config = replace(config, epochs=10)
    return config
