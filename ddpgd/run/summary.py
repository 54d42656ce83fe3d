"""The summary of a run: its fields, which are the schema of summary.json, and how that is read and written."""

import json
import math
from pathlib import Path
from types import UnionType
from typing import Any, TypedDict, cast, get_args, get_origin, get_type_hints

from ddpgd.errors import InputError, shown
from ddpgd.run import strict_json
from ddpgd.run.atomic import write_atomically
from ddpgd.training.counters import Record

_LARGEST_FILE = 1_000_000
_LARGEST_INT = 2**64


NO_CLIENTS: Record = {
    "client_bytes": 0,
    "epsilon": None,
    "masked_change": None,
    "client_loss_mean": None,
    "client_accuracy_mean": None,
    "client_accuracy_std": None,
    "client_accuracy_worst_decile": None,
}
"""The fields of federated runs, as others have them."""


NO_VALIDATION: Record = {"validation_loss_mean": None, "validation_accuracy": None, "best_step": None}
"""The fields of runs with validation samples, as others have them."""


class Summary(TypedDict):
    """The result of a complete run, equal on all ranks. It describes the whole run, resumes included.

    Attributes:
        complete: Always True; a run that ended early has no summary.
        run_dir: Absolute path of the run folder; not in summary.json, which lies in it.
        warnings: Sentences on what a user should know, such as that the run diverged; usually empty.
        world_size: Number of ranks.
        lost_ranks: Ranks that died while others went on, in order, as the launcher numbered them; empty in earlier versions.
        num_nodes: Number of machines that have ranks.
        shards: Parts in which each layer's width is computed.
        tensor: Number of ranks that share each layer.
        pipeline: Number of ranks that have some of the layers each.
        global_batch: Samples per update, over all ranks; with `--sync federated`, clients in a round.
        micro_batch: Samples in one forward and backward pass.
        steps: Steps of the whole run, those before a resume included.
        epochs: Passes over the training samples, a fraction where the last one is not complete.
        samples: Samples used for training, counted each time.
        skipped_updates: Steps whose update was skipped because the gradient had NaN or infinity.
        train_loss_mean: Mean training loss over the last epoch; None where no update of it was applied.
        test_loss_mean: Mean loss over the test samples after `best_step`; None where it is not finite.
        test_accuracy: Fraction of the test samples that are classified correctly, 0 to 1.
        validation_loss_mean: The same over the validation samples; None in runs without.
        validation_accuracy: The same over the validation samples; None in runs without.
        best_step: The step whose weights did best on the validation samples; None in runs without: the last one.
        ended: Why the run ended before its last step, as in "accuracy 98.03 % is reached"; empty: it did not.
        train_s: Seconds in training steps, those before a resume included; set-up and evaluation excluded.
        length_changed_at: The last step after which a resume gave the run another length, and its schedule other rates; None
            where there was none, and in earlier versions.
        train_s_since_start: Seconds in training steps since this start.
        samples_per_s: Training throughput since this start, all ranks together; None where no step was run.
        step_us_median: Median time of a step, microseconds.
        exchange_us_median: Median time of the exchange in a step, microseconds, waiting for other ranks included.
        step_shares: Fractions of a step: "compute", "wait", "exchange" and "update", and "bubble" in a pipeline, where stages
            wait for each other; they add up to 1. A step that is one CUDA graph is "compute" as a whole.
        late_rank: The rank that the others wait for, from 20 % of the time on: "rank", "share" (of the time), "run_share" (of
            the time, with a core) and "run_share_most" (the largest of any rank); else None.
        optimizer_bytes: Bytes of the optimizer's vectors on the rank that holds most; None in earlier versions.
        wire_bytes_per_step: Bytes that the busiest rank sends in a step.
        between_bytes_per_step: Bytes that the busiest rank sends to other nodes in a step of two levels; 0 where the exchange
            is flat, which does not count them apart.
        client_bytes: Bytes that the clients and the server of a federated run would have sent: in each round the params to each
            client, and its change back; 0 in other runs.
        epsilon: Privacy loss of a client in a federated run with `--dp-noise`, at `--dp-delta`; else None.
        masked_change: First words of a client's "change" and of what the server got, "masked", in the last round of a run with
            `--secure-aggregation`; else None.
        client_loss_mean: Mean loss of the clients of a federated run on their own samples, each counted alike; else None.
        client_accuracy_mean: The same of their accuracy.
        client_accuracy_std: Its standard deviation over clients.
        client_accuracy_worst_decile: Its mean over the worst tenth of clients.
        wire_compression: Bytes of a float32 ring exchange divided by those sent; None where nothing is sent.
        noise_scale: Gradient noise scale, in samples: the batch beyond which a larger one saves few steps; None where it
            cannot be told, as with one micro-batch in a step, and in earlier versions.
        one_rank_s_estimate: Seconds that one rank alone would have needed for `train_s`.
        params_sha256: SHA-256 of all params, as 64 hexadecimal digits.
        num_params: Number of params.
        backend: "numpy" or "cupy".
        transport: How ranks communicated, as in "mpi-host".
        transport_choice: Why `--transport auto` took it; empty where there was no choice.
        exchange: "flat", between all ranks, or "two-level", inside nodes first.
        exchange_choice: Why `--exchange` led to it, where there was a choice; else empty.
        num_buckets: Parts in which gradients travel, all but one beside the backward pass.
        wire: Form of gradients on the wire, as in "float32".
        reduce: "ordered" or "fast".
        precision: Input type of matrix products, as in "float32".
        seed: Seed of the initial weights and the data order.
        version: Version of ddpgd.
        hardware: Processor, system and versions that equal bits depend on.
    """

    complete: bool
    run_dir: str
    warnings: list[str]
    world_size: int
    lost_ranks: list[int]
    num_nodes: int
    shards: int
    tensor: int
    pipeline: int
    global_batch: int
    micro_batch: int
    steps: int
    epochs: float
    samples: int
    skipped_updates: int
    train_loss_mean: float | None
    test_loss_mean: float | None
    test_accuracy: float
    validation_loss_mean: float | None
    validation_accuracy: float | None
    best_step: int | None
    ended: str
    train_s: float
    length_changed_at: int | None
    train_s_since_start: float
    samples_per_s: float | None
    step_us_median: float | None
    exchange_us_median: float | None
    step_shares: dict[str, float]
    late_rank: dict[str, float] | None
    optimizer_bytes: int | None
    wire_bytes_per_step: int
    between_bytes_per_step: int
    client_bytes: int
    epsilon: float | None
    masked_change: dict[str, list[int]] | None
    client_loss_mean: float | None
    client_accuracy_mean: float | None
    client_accuracy_std: float | None
    client_accuracy_worst_decile: float | None
    wire_compression: float | None
    noise_scale: float | None
    one_rank_s_estimate: float
    params_sha256: str
    num_params: int
    backend: str
    transport: str
    transport_choice: str
    exchange: str
    exchange_choice: str
    num_buckets: int
    wire: str
    reduce: str
    precision: str
    seed: int
    version: str
    hardware: str


class Evaluation(TypedDict):
    """The result of evaluating a checkpoint.

    Attributes:
        step: Steps that the checkpoint was trained for.
        test_loss_mean: Mean loss over the test samples; None where it is not finite.
        test_accuracy: Fraction of the test samples that are classified correctly, 0 to 1.
        test_samples: Number of test samples.
        data: Name of the data.
        world_size: Number of ranks that evaluated.
    """

    step: int
    test_loss_mean: float | None
    test_accuracy: float
    test_samples: int
    data: str
    world_size: int


def write_summary(folder: Path, summary: Record) -> None:
    """Writes summary.json: a reader sees the old one or the new one, never half."""
    write_atomically(folder / "summary.json", [f"{json.dumps(summary, indent=2)}\n".encode()])


def read_summary(folder: Path) -> Summary:
    """Reads summary.json of a run folder.

    Raises:
        InputError: The run is not complete, or the file is damaged.
    """
    path = folder / "summary.json"
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{folder}: not the folder of a complete run: summary.json: {why}") from None
    try:
        if len(content) > _LARGEST_FILE:
            raise ValueError(f"longer than {_LARGEST_FILE} bytes")
        return _checked(strict_json.parse(content.decode()), str(folder.absolute()))
    except ValueError as error:
        raise InputError(f"{path}: not a summary of ddpgd ({error}); name another run, or train it again") from None


def _checked(table: Any, run_dir: str) -> Summary:
    """Returns the summary in a JSON value. ValueError: it is none. Earlier versions did not write all fields."""
    if not isinstance(table, dict):
        raise ValueError("it is not a table")
    table = {
        "warnings": [],
        "train_s_since_start": table.get("train_s"),
        "late_rank": None,
        "lost_ranks": [],
        "optimizer_bytes": None,
        "length_changed_at": None,
        "transport_choice": "",
        "exchange": "flat",
        "exchange_choice": "",
        "between_bytes_per_step": 0,
        **NO_CLIENTS,
        "num_buckets": 1,
        "noise_scale": None,
        **NO_VALIDATION,
        "ended": "",
        **table,
        "run_dir": run_dir,
    }
    kinds = get_type_hints(Summary)
    for name in (*kinds, *table):
        if name not in kinds:
            raise ValueError(f"there is no field {shown(name)}")
        if name not in table:
            raise ValueError(f"it has no {name}")
        if not _fits(table[name], kinds[name]):
            raise ValueError(f"{name} is {shown(table[name])}")
    if not table["complete"]:
        raise ValueError("the run is not complete")
    return cast(Summary, table)


def _fits(value: Any, kind: Any) -> bool:
    """Returns whether a JSON value is of a type; numbers must be finite, whole numbers not negative."""
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(one, get_args(kind)[0]) for one in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(one, get_args(kind)[1]) for one in value.values())
    if kind is float:
        return (
            type(value) in (int, float) and (type(value) is float or abs(value) < _LARGEST_INT) and math.isfinite(value)
        )
    if kind is int:
        return type(value) is int and 0 <= value < _LARGEST_INT
    return type(value) is kind
