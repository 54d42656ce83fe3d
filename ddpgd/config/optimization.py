"""Refusals of options of update rules, clipping and schedules."""

from typing import Any

from ddpgd.comm.wires import WIRES
from ddpgd.optim.rules import RULES
from ddpgd.optim.schedules import PLATEAU, SCHEDULES


def refusals(config: Any) -> list[tuple[bool, str]]:
    """Returns pairs of a fault and its line, of a configuration whose numbers are in their ranges."""
    cycles = SCHEDULES[config.schedule].momentum is not None
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
        (
            config.schedule == PLATEAU and config.sync == "federated",
            f"--schedule {PLATEAU}: clients begin anew in each round; type --schedule step",
        ),
        (
            config.schedule == PLATEAU and not config.validation,
            f"--schedule {PLATEAU}: test samples must not decide about training; type --validation 5000 as well",
        ),
        (
            cycles and config.warmup > 0,
            f"--warmup: --schedule {config.schedule} begins with a rise; drop it, or type --rise-fraction 0.3",
        ),
        (
            cycles and config.min_momentum > config.max_momentum,
            f"--min-momentum {config.min_momentum} is more than --max-momentum {config.max_momentum}; type less",
        ),
        (
            cycles and wire_has_momentum,
            f"--schedule {config.schedule}: --wire {config.wire} has a momentum of its own, which does not cycle; "
            "type --optimizer sgd",
        ),
    ]
