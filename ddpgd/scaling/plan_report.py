"""Predictions as a table for people, and as JSON for programs."""

import json
from collections.abc import Sequence

from ddpgd.config.units import bytes_text, time_text
from ddpgd.scaling.advice import percent
from ddpgd.scaling.cost_model import Prediction
from ddpgd.scaling.fit import Fit


def table(predictions: Sequence[Prediction], samples_per_epoch: int, note: str = "") -> list[str]:
    """Returns a line for each number of ranks, and lines on what an epoch and the exchange are.

    Args:
        predictions: The rows.
        samples_per_epoch: Samples in an epoch.
        note: A clause on the exchange; empty: none.
    """
    lines = [
        f"{'ranks':>6} {'batch':>9} {'step':>10} {'compute':>10} {'wait':>10} {'exchange':>10} {'buckets':>7} {'sent':>10} "
        f"{'samples/s':>12} {'epoch':>10} {'efficient':>9}"
    ]
    for one in predictions:
        epoch_s = samples_per_epoch / one.samples_per_s
        lines.append(
            f"{one.world_size:6,} {one.global_batch:9,} {time_text(one.step_s):>10} {time_text(one.compute_s):>10} "
            f"{time_text(one.wait_s):>10} {time_text(one.exchange_s):>10} {one.num_buckets:7} "
            f"{bytes_text(one.wire_bytes):>10} {one.samples_per_s:12,.0f} {time_text(epoch_s):>10} "
            f"{percent(one.efficiency):>9}"
        )
    lines.append(f"(an epoch is {samples_per_epoch:,} samples; --samples NUMBER sets another number)")
    return [*lines, f"(exchange: {note})"] if note else lines


def as_json(
    predictions: Sequence[Prediction], advice: Sequence[str], fitted: Fit | None, samples_per_epoch: int
) -> str:
    rows = [
        one._asdict() | {"exchange_s": one.exchange_s, "epoch_s": samples_per_epoch / one.samples_per_s}
        for one in predictions
    ]
    return json.dumps({"predictions": rows, "advice": advice, "fit": fitted.table() if fitted else None}, indent=2)
