"""The configuration of a run: one frozen dataclass, from which flags, TOML files, checkpoints and help are generated.

`parsing.coerce` converts a single value, `validation.validate` checks values together, `resolve` fills in defaults.
"""

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ddpgd.comm.grid import PIPELINE_SCHEDULES
from ddpgd.comm.transports.capabilities import TRANSPORTS
from ddpgd.comm.wires import WIRES
from ddpgd.config.federated import DEFAULT_ROUNDS, FederatedOptions, client_lr
from ddpgd.config.option import fixed_option, option
from ddpgd.config.parsing import coerce
from ddpgd.config.units import enumerated
from ddpgd.data.augmentations import AUGMENTATIONS
from ddpgd.errors import InputError, shown
from ddpgd.kernels.ops import REPLAYS
from ddpgd.model.layers import ACTIVATIONS
from ddpgd.model.network import LOSSES
from ddpgd.optim.rules import RULES
from ddpgd.optim.schedules import SCHEDULES
from ddpgd.params import INITS


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
class Config(FederatedOptions):
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
    max_time: float | None = option(
        None, "length", "seconds after which to write a checkpoint and exit with code 75", float
    )

    hidden: tuple[int, ...] = fixed_option(
        (512,), "network", "widths of the hidden layers, as in 512,512; 0: none", tuple
    )
    activation: str = fixed_option("relu", "network", "activation function of the hidden layers", choices=ACTIVATIONS)
    init: str = fixed_option("he", "network", "distribution of the initial weights", choices=tuple(INITS))
    loss: str = fixed_option("cross-entropy", "network", "loss function", choices=tuple(LOSSES))
    label_smoothing: float = fixed_option(
        0.0,
        "network",
        "in training, share of each label that is spread over all classes, with --loss cross-entropy, as in 0.1",
        float,
    )
    dropout: float = fixed_option(
        0.0, "network", "in training, probability of leaving out each hidden unit for a sample, as in 0.5", float
    )
    input_dropout: float = fixed_option(0.0, "network", "the same of each pixel, as in 0.2", float)
    shards: int = fixed_option(
        1, "network", "parts in which each layer's width is computed, so that --tensor ranks can share it", int
    )
    seed: int = fixed_option(0, "network", "seed of the initial weights and the data order", int)

    global_batch: int | None = fixed_option(None, "batch", "samples per update, over all ranks (default: 256)", int)
    micro_batch: int = fixed_option(64, "batch", "samples in one forward and backward pass", int)
    accumulate: int | None = option(
        None, "batch", "micro-batches per rank and update, instead of --global-batch; fixed at the first start", int
    )

    augment: str = fixed_option(
        "none",
        "augmentation",
        "random change of each training image, anew in every epoch: affine maps, or elastic fields on top of them",
        choices=tuple(AUGMENTATIONS),
    )
    shift: float = fixed_option(2.0, "augmentation", "largest shift of an image, in pixels", float)
    rotate: float = fixed_option(10.0, "augmentation", "largest rotation, in degrees", float)
    scale: float = fixed_option(
        0.1, "augmentation", "largest change of height and of width, as in 0.1 for 0.9 to 1.1", float
    )
    shear: float = fixed_option(10.0, "augmentation", "largest angle of shear, in degrees", float)
    elastic_alpha: float = fixed_option(
        34.0,
        "augmentation",
        "with --augment elastic: factor of the displacements, in pixels before they are smoothed",
        float,
    )
    elastic_sigma: float = fixed_option(
        4.0,
        "augmentation",
        "with --augment elastic: standard deviation of the Gaussian that smooths them, in pixels",
        float,
    )

    optimizer: str = fixed_option("momentum", "optimizer", "update rule", choices=tuple(RULES))
    lr: float | None = fixed_option(
        None,
        "optimizer",
        f"learning rate (default: the update rule's: {_rates()}; with --sync federated times 1 - momentum)",
        float,
    )
    momentum: float = fixed_option(0.9, "optimizer", f"momentum of --optimizer {_rules_with('momentum')}", float)
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
        0.95, "optimizer", f"with --schedule one-cycle: momentum at start and end, of {_rules_with_momentum()}", float
    )
    min_momentum: float = fixed_option(
        0.85, "optimizer", "with --schedule one-cycle: momentum where the learning rate is --lr", float
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

    backend: Literal["auto", "numpy", "cupy"] = option(
        "auto", "machine", "compute backend: cupy (GPU) or numpy (CPU)", choices=("auto", "numpy", "cupy")
    )
    precision: Literal["float32", "tf32", "float16", "bfloat16"] = fixed_option(
        "float32",
        "machine",
        "input type of matrix products, whose sums are float32; all but float32 need a GPU",
        choices=("float32", "tf32", "float16", "bfloat16"),
    )
    replay: Literal["graph", "persistent"] = option(
        "graph",
        "machine",
        "how a GPU runs steps that need no host work: as CUDA graphs, or, those of a small network on one rank, in one kernel",
        choices=REPLAYS,
    )
    share_gpu: bool = option(False, "machine", "let several ranks of a node share one GPU", bool)
    transport: Literal["auto", "alone", "threads", "mpi-host", "mpi-cuda", "nccl"] = option(
        "auto",
        "machine",
        "how ranks communicate; auto: by NCCL if each has a GPU and it works, else host memory",
        choices=("auto", *TRANSPORTS),
    )
    tensor: int = option(
        1, "machine", "ranks that share each layer, at most --shards; the others compute other samples", int
    )
    pipeline: int = option(1, "machine", "ranks that each have some of the layers, and follow each other", int)
    pipeline_schedule: Literal["1f1b", "gpipe"] = option(
        "1f1b",
        "machine",
        "with --pipeline: how many micro-batches a stage holds; 1f1b: one for each stage to come; gpipe: all of a step",
        choices=PIPELINE_SCHEDULES,
    )
    stages: tuple[int, ...] | None = option(
        None, "machine", "with --pipeline: layers of each stage, as in 2,1 (default: balanced by their cost)", tuple
    )
    ranks: int | None = option(None, "machine", "number of ranks of --transport threads", int)
    wire: str = fixed_option(
        "float32",
        "exchange",
        "form of gradients on the wire: float32; 16 or 8 bits, scaled by block; the largest elements; or low rank",
        choices=tuple(WIRES),
    )
    topk_density: float = fixed_option(0.01, "exchange", "fraction of the elements that --wire topk sends", float)
    topk_warmup: int = fixed_option(0, "exchange", "epochs in which --wire topk sends more, fewer each epoch", int)
    topk_masking: bool = fixed_option(
        False, "exchange", "with --wire topk: clear the momentum of elements that are sent", bool
    )
    powersgd_rank: int = fixed_option(2, "exchange", "rank of the approximation of --wire powersgd", int)
    error_feedback: bool = fixed_option(False, "exchange", "add each step's encoding error to the next gradient", bool)
    reduce: Literal["ordered", "fast"] = fixed_option(
        "ordered",
        "exchange",
        "order of the sum: canonical, with the same bits on any number of ranks, or the transport's own",
        choices=("ordered", "fast"),
    )
    exchange: Literal["auto", "flat", "two-level"] = option(
        "auto",
        "exchange",
        "form of the ordered sum: between all ranks, or inside nodes first; auto: what is faster, for --wire float32",
        choices=("auto", "flat", "two-level"),
    )
    shard_optimizer: Literal["auto", "on", "off"] = option(
        "auto",
        "exchange",
        "let each rank hold and update its part of the optimizer, with the same bits; auto: on CPUs, where it is faster",
        choices=("auto", "on", "off"),
        bare="on",
    )
    overlap: Literal["auto", "on", "off"] = option(
        "auto",
        "exchange",
        "send the last layers' gradients while others are computed, with the same bits, where each rank has a GPU and NCCL; "
        "auto: in as many buckets as the cost model finds fastest",
        choices=("auto", "on", "off"),
        bare="on",
    )
    sync: Literal["every-step", "local", "federated"] = fixed_option(
        "every-step",
        "exchange",
        "combine gradients at every step, changes of the params after local steps, or those of clients in rounds",
        choices=("every-step", "local", "federated"),
    )
    local_steps: int = fixed_option(8, "exchange", "with --sync local: steps between two combinations", int)
    local_after: int = fixed_option(
        0, "exchange", "with --sync local: steps of gradient exchange before it begins", int
    )
    outer_lr: float = fixed_option(
        1.0, "exchange", "with --sync local or federated: learning rate of the mean change", float
    )
    outer_momentum: float = fixed_option(
        0.0, "exchange", "with --sync local or federated: momentum of the mean change; Nesterov's with local", float
    )


MUTUALLY_EXCLUSIVE = (("epochs", "steps"), ("rounds", "steps"), ("rounds", "epochs"), ("global_batch", "accumulate"))
"""Pairs of options that set the same thing, of which only one may be given."""

_INHERITED = {one.name for one in fields(FederatedOptions)}

OPTIONS: Mapping[str, Field[Any]] = {
    one.name: one for one in sorted(fields(Config), key=lambda one: one.name in _INHERITED)
}
"""The fields by name, those for one way to train last."""


def _field_doc(field: Field[Any]) -> str:
    """Returns one line on a field: name, type, default, help text."""
    choices = field.metadata["choices"]
    kind = f"one of {', '.join(choices)}" if choices else field.metadata["kind"].__name__
    default = "" if field.default is None else f", default {field.default!r}"
    return f"        {field.name} ({kind}{default}): {field.metadata['help']}.\n"


Config.__doc__ = f"{Config.__doc__}\n    Attributes:\n{''.join(map(_field_doc, OPTIONS.values()))}    "


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def to_table(config: Config) -> dict[str, Any]:
    """Returns `config` as a TOML or JSON table, without fields that are None."""
    table = {name: value for name, value in asdict(config).items() if value is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in table.items()}


def from_table(table: Mapping[str, Any]) -> Config:
    """The inverse of `to_table`. InputError: an option that this version does not know."""
    unknown = table.keys() - OPTIONS.keys()
    if unknown:
        raise InputError(
            f"written by another version of ddpgd, with the option {shown(min(unknown))}; use that version"
        )
    return Config(**{name: coerce(OPTIONS[name], value, name) for name, value in table.items()})


def resolve(config: Config, world_size: int) -> Config:
    """Returns `config` with defaults filled in and --accumulate turned into a global batch: W * accumulate * micro_batch.

    With --sync federated a step is a round, and there is no global batch.
    """
    if config.lr is None:
        lr = client_lr(config) if config.sync == "federated" else RULES[config.optimizer].lr
        config = replace(config, lr=lr)
    if config.sync == "federated":
        return replace(config, steps=config.rounds or config.steps or DEFAULT_ROUNDS, rounds=None)
    if config.accumulate is not None:
        global_batch = world_size * config.accumulate * config.micro_batch
        config = replace(config, global_batch=global_batch, accumulate=None)
    if config.global_batch is None:
        config = replace(config, global_batch=max(256, config.micro_batch))
    if config.epochs is None and config.steps is None:
        config = replace(config, epochs=10)
    return config
