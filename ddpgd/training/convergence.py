"""Convergence: the criteria by which a run ends before its last step. All ranks decide alike, from equal counters."""

from typing import NamedTuple

from ddpgd.training.counters import Counters


class Criteria(NamedTuple):
    """Criteria that end a run early; None: that one never does.

    Attributes:
        accuracy: Reached by an evaluation, on validation samples where there are any; 0 to 1.
        patience: Evaluations on validation samples, one after the other, of which none is the best so far. Prechelt, "Early
            stopping - but when?", 1998.
        grad_norm: Not exceeded by the norm of the mean gradient of a recorded step.
        loss_fall: Not reached by the fraction by which an epoch's mean training loss is below that of the one before.
    """

    accuracy: float | None = None
    patience: int | None = None
    grad_norm: float | None = None
    loss_fall: float | None = None

    def met(self, counters: Counters) -> str:
        """Returns why a run with these counters ends here; empty: it goes on.

        >>> Criteria(grad_norm=0.1).met(Counters(step=50, grad_norm=0.05))
        'the gradient norm is 0.05, at most 0.1'
        """
        accuracy, is_new = counters.accuracy, counters.evaluated_at == counters.step
        if self.accuracy is not None and is_new and accuracy is not None and accuracy >= self.accuracy:
            return f"accuracy {100 * accuracy:.2f} % is reached"
        since = counters.evaluations_since_best
        if self.patience is not None and since >= self.patience:
            return f"{since} evaluations were no better than that after step {counters.tested_at}"
        if self.grad_norm is not None and counters.grad_norm is not None and counters.grad_norm <= self.grad_norm:
            return f"the gradient norm is {counters.grad_norm:.3g}, at most {self.grad_norm:g}"
        fall = counters.epoch_loss_fall
        if self.loss_fall is not None and fall is not None and fall < self.loss_fall:
            return f"the training loss fell by {100 * fall:.3g} % in an epoch, less than {100 * self.loss_fall:g} %"
        return ""
