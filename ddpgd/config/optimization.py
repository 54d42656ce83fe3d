"""Refusals of options of update rules, clipping and schedules."""

from typing import Any

from ddpgd.comm.wires import WIRES
from ddpgd.optim.rules import RULES


def refusals(config: Any) -> list[tuple[bool, str]]:
    """Returns pairs of a fault and its line, of a configuration whose numbers are in their ranges."""
    wire_has_momentum = WIRES[config.wire].takes_momentum and config.optimizer == "momentum"
    return [
        (
            config.clip_value > 0 and config.clip_norm > 0,
            "--clip-value and --clip-norm both bound the gradient; type one of them",
        ),
        (
            config.clip_value > 0 and bool(RULES[config.optimizer].companion),
            f"--clip-value: --optimizer {config.optimizer} orthogonalises whole matrices; type --clip-norm 1",
        ),
        (
            config.clip_value > 0 and wire_has_momentum,
            f"--clip-value: --wire {config.wire} adds the momentum before ranks sum; type --clip-norm 1",
        ),
    ]
