"""The fields of a run's summary, as in summary.json."""

from typing import Any, TypedDict


class Summary(TypedDict):
    """The result of a complete run, equal on all ranks. It describes the whole run, resumes included.

    Attributes:
        complete: Always True; a run that ended early has no summary.
        run_dir: Absolute path of the run folder; not in summary.json, which lies in it.
        warnings: Sentences on what a user should know, such as that the run diverged; usually empty.
        world_size: Number of ranks.
        num_nodes: Number of machines that have ranks.
        global_batch: Samples per update, over all ranks.
        micro_batch: Samples in one forward and backward pass.
        steps: Steps of the whole run, those before a resume included.
        epochs: Passes over the training samples, a fraction where the last one is not complete.
        samples: Samples used for training, counted each time.
        skipped_updates: Steps whose update was skipped because the gradient had NaN or infinity.
        train_loss_mean: Mean training loss over the last epoch; None where no update of it was applied.
        test_loss_mean: Mean loss over the test samples after the last step; None where it is not finite.
        test_accuracy: Fraction of the test samples that are classified correctly, 0 to 1.
        train_s: Seconds in training steps, those before a resume included; set-up and evaluation excluded.
        train_s_since_start: Seconds in training steps since this start.
        samples_per_s: Training throughput since this start, all ranks together; None where no step was run.
        step_us_median: Median time of a step, microseconds.
        exchange_us_median: Median time of the exchange in a step, microseconds, waiting for other ranks included.
        step_shares: Fractions of a step: "compute", "wait", "exchange" and "update"; they add up to 1.
        late_rank: The rank that the others wait for, from 20 % of the time on: "rank", "share" (of the time), "run_share" (of
            the time, with a core) and "run_share_most" (the largest of any rank); else None.
        wire_bytes_per_step: Bytes that the busiest rank sends in a step.
        wire_compression: Bytes of a float32 ring exchange divided by those sent; None where nothing is sent.
        one_rank_s_estimate: Seconds that one rank alone would have needed for `train_s`.
        params_sha256: SHA-256 of all params, as 64 hexadecimal digits.
        num_params: Number of params.
        backend: "numpy" or "cupy".
        transport: How ranks communicated, as in "mpi-host".
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
    num_nodes: int
    global_batch: int
    micro_batch: int
    steps: int
    epochs: float
    samples: int
    skipped_updates: int
    train_loss_mean: float | None
    test_loss_mean: float | None
    test_accuracy: float
    train_s: float
    train_s_since_start: float
    samples_per_s: float | None
    step_us_median: float | None
    exchange_us_median: float | None
    step_shares: dict[str, float]
    late_rank: dict[str, Any] | None
    wire_bytes_per_step: int
    wire_compression: float | None
    one_rank_s_estimate: float
    params_sha256: str
    num_params: int
    backend: str
    transport: str
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
