"""The configuration of a run that goes on: the checkpoint's, with what this start may say otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ddpgd.config import exchange
from ddpgd.config.option import ALL
from ddpgd.config.schema import OPTIONS, Config, flag, text_of
from ddpgd.errors import InputError

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


_LENGTHS = ("epochs", "steps", "rounds")
"""Lengths of a run, of which one is set."""

_ENDS = (*_LENGTHS, "until_accuracy", "patience", "until_grad_norm", "until_loss_fall")
"""Options that end a run: a new length takes the place of all of them that are not given again."""


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
            OPTIONS[name].metadata["fixed"] or (name == "exchange" and exchange.rounds_apart(saved, value))
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
