"""Refusals of --elastic: runs in which a rank that dies takes something along that no other rank has."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ddpgd.comm.wires import WIRES

if TYPE_CHECKING:
    from ddpgd.config.schema import Config


def refusals(config: "Config") -> Iterator[tuple[bool, str]]:
    """Yields, for each contradiction, whether it is there, and the line that says what to type."""
    if not config.elastic:
        return
    transport, wire = config.transport, config.wire
    yield (
        config.sync != "every-step",
        f"--elastic: with --sync {config.sync} each rank has params of its own, which die with it; type --sync every-step",
    )
    yield (
        config.tensor * config.pipeline > 1,
        "--elastic: with --tensor or --pipeline a part of the network dies with its rank; drop one of them",
    )
    yield (
        config.shard_optimizer == "on",
        "--elastic: with --shard-optimizer a part of the optimizer dies with its rank; drop one of them",
    )
    yield (
        WIRES[wire].keeps_residuals or config.error_feedback,
        f"--elastic: with {'--error-feedback' if config.error_feedback else f'--wire {wire}'} residuals die with their rank; "
        "drop one of them",
    )
    yield (
        config.reduce == "fast",
        "--elastic: sums of --reduce fast have other bits on fewer ranks; type --reduce ordered",
    )
    yield (
        transport not in ("auto", "mpi-host"),
        f"--elastic: --transport {transport} ends with the first rank that dies; type --transport mpi-host",
    )
