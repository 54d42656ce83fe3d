"""The figures of steps, as the training loop gets them."""

from typing import NamedTuple

from ddpgd.comm.codec import WireLoss
from ddpgd.training.update_norms import BlockNorms


class StepResult(NamedTuple):
    """Figures of one or more steps: equal on all ranks but for the times (seconds) and the bytes (sent by this rank).

    `residual_norm`: of what rank 0 keeps back, in units of the mean gradient, at observed steps. `drift`: how far ranks
    were from their mean before they combined params, over how far that mean had moved.
    `halted`: the gradient of the last of them was not finite. `loss_sums` are those of the updates that were applied;
    `loss_scale` is None where it is fixed; it, `stop`, `lr`, `grad_norm` and `squared_norm_sum` are those of the last step.
    `exchange_s` is None where the host did not see the exchange. `between_bytes`: of `wire_bytes`, those to other nodes, where
    they are counted apart. `stage_wait_s`: of `compute_s`, the time of waiting for other stages of a pipeline.
    `block_norms`: of this rank's part of an observed update; None where several steps, or clients, make one.
    """

    num_steps: int
    samples: int
    loss_sums: list[float]
    halted: bool
    squared_norm_sum: float
    stop: bool
    lr: float
    loss_scale: float | None
    grad_norm: float
    step_s: float
    compute_s: float
    exchange_s: float | None
    wire_bytes: int
    wire_loss: WireLoss | None
    residual_norm: float | None = None
    drift: float | None = None
    between_bytes: int = 0
    stage_wait_s: float = 0.0
    block_norms: BlockNorms | None = None
