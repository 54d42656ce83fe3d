"""`ddpgd plan --overlap`: a stated share of computing, or the buckets in which ddpgd itself would send gradients."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ddpgd.comm.buckets import Layer
from ddpgd.comm.transports.capabilities import TRANSPORTS
from ddpgd.comm.wires import Load
from ddpgd.config.schema import Config
from ddpgd.errors import InputError
from ddpgd.run import overlap
from ddpgd.scaling.cost_model import Prediction
from ddpgd.scaling.fit import Fit

AUTO = "auto"


class Overlap(NamedTuple):
    """An answer. `share`: of computing, stated. `layers`: as of `cost_model.Work`; empty: nothing travels in buckets."""

    share: float = 0.0
    layers: tuple[Layer, ...] = ()


def transport_of(config: Config, fitted: Fit | None, on_gpu: bool) -> str:
    """Returns the transport of the ranks of a plan: the named one, or the one that `auto` takes, as far as is known."""
    if config.transport != AUTO:
        return config.transport
    if fitted is not None and fitted.world_size > 1:
        return fitted.transport
    return "nccl" if on_gpu else "mpi-host"


def parse(text: str | None, config: Config, image_shape: tuple[int, int] | None, transport: str) -> Overlap:
    """Returns what --overlap says.

    Args:
        text: As typed; None, the default, is "auto".
        config: The run.
        image_shape: Of the samples; None: nothing is known of the network but its size.
        transport: The one that its ranks use.

    Raises:
        InputError: It is no fraction; or "auto" of a network without known layers.
    """
    if text in (None, AUTO):
        if image_shape is None and text is not None:
            raise InputError(
                "--overlap auto: --parameters does not say which layers there are; type --hidden 512,512, or a fraction"
            )
        known = image_shape is not None and TRANSPORTS[transport].overlaps
        return Overlap(layers=overlap.layer_shares(config, image_shape) if known and image_shape else ())
    try:
        share = float(text or "")
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError(f"--overlap: {text!r} is not a fraction; type a number from 0 to 1, or auto")
    return Overlap(share)


def note(
    asked: bool,
    config: Config,
    size: int,
    layers: Sequence[Layer],
    transport: str,
    predictions: Sequence[Prediction],
) -> str:
    """Returns a clause on the exchange of a table; empty: there is nothing to say.

    Args:
        asked: True if --overlap auto was typed.
        config: The run.
        size: Elements of the gradient.
        layers: As of `Overlap`.
        transport: The one that its ranks use.
        predictions: The rows of the table.
    """
    last = predictions[-1]
    if any(one.num_buckets > 1 for one in predictions):
        return f"what the backward pass does not hide; over {transport}, in buckets of layers, as ddpgd train --overlap auto"
    if not asked or last.world_size == 1:
        return ""
    nodes = (last.world_size,) * (last.exchange == "two-level")
    sharded = config.shard_optimizer == "on"
    count = -(-last.global_batch // config.micro_batch)
    load = Load(size, count, last.world_size, reduce=config.reduce, nodes=nodes, sharded=sharded)
    why = overlap.why_not(config, transport, load, layers)
    return f"none of it beside the backward pass: {why or 'one bucket is fastest'}"
