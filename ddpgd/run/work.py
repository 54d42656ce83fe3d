"""The work of a run in words: what a step is, and what users should know about it."""

from typing import NamedTuple

from ddpgd.comm.grid import Shape
from ddpgd.config.option import ALL
from ddpgd.config.schema import Config, global_batch
from ddpgd.config.units import plural
from ddpgd.optim import schedules
from ddpgd.training.batch_split import Algebra


class Work(NamedTuple):
    """A line on the work of a step, and a sentence for each thing about it that a user hardly wants."""

    text: str
    doubts: list[str]


def of_steps(config: Config, shape: Shape, num_samples: int) -> Work:
    """Returns the words on steps that cut a global batch into micro-batches."""
    batch = global_batch(config)
    factor = schedules.scale(config.scale_lr, batch)
    scaled = f" x {factor:g} ({config.scale_lr})" if config.scale_lr else ""
    algebra = Algebra(batch, config.micro_batch, shape.data, "replica" if shape.replica > 1 else "rank")
    doubts = []
    idle = shape.replica * (shape.data - algebra.num_micro_batches)
    if idle > 0:
        ranks = plural(shape.data * shape.replica, "rank")
        doubts.append(f"{idle} of {ranks} idle: type --accumulate 1, or a larger --global-batch")
    if batch > num_samples:
        doubts.append(
            f"--global-batch {batch:,} is more than the {num_samples:,} training samples: "
            f"a step is a whole epoch of {num_samples:,} samples; type a smaller one"
        )
    return Work(f"{algebra}; {config.optimizer}, lr {config.lr:g}{scaled}", doubts)


def of_rounds(config: Config, shape: Shape, clients_per_round: int) -> Work:
    """Returns the words on rounds of clients."""
    batch = "one batch" if config.client_batch == ALL else f"batches of {config.client_batch}"
    text = (
        f"{clients_per_round} of {plural(config.clients, 'client')} a round ({config.partition}), "
        f"{plural(config.local_epochs, 'epoch')} in {batch} each; {config.optimizer}, lr {config.lr:g}; server "
        f"{config.server_optimizer}, lr {config.outer_lr:g}"
    )
    if config.dp_clip:
        text += f"; changes clipped to {config.dp_clip:g}, noise {config.dp_noise:g}"
    if config.secure_aggregation:
        text += "; changes masked"
    idle = shape.data - clients_per_round
    doubts = [f"{idle} of {shape.data} ranks idle: type a larger --client-fraction"] if idle > 0 else []
    return Work(text, doubts)
