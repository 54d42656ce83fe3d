"""Steps that run before the host looks: all ranks agree on their number, and on an end, from the words of earlier steps."""

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.requests import Requests
from ddpgd.kernels.ops import Ops

LONGEST_RUN_S = 0.1
"""Steps that run without a look of the host take about so long at most, so that a signal is soon heard."""


class Lookahead:
    """The number of steps in a run without a look of the host.

    Ranks that exchange gradients must run the same number: it follows from the time that one rank told in the tail of an
    earlier step, which is equal on all ranks. A request to stop travels in the same way, so all ranks see it at the same
    look. Where no other rank adds to the sums, the rank goes by its own time.

    Attributes:
        requests: The words that this rank adds to its tails; None where nobody else reads them.
    """

    def __init__(self, ops: Ops, exchange: Exchange) -> None:
        self.requests = Requests(ops) if exchange.has_peers else None
        self._tells = exchange.tells
        self._own_step_s = LONGEST_RUN_S
        self._agreed_step_s = LONGEST_RUN_S

    def num_steps(self, most: int, stop: bool) -> int:
        """Returns how many steps to run: 1 to `most`, in about `LONGEST_RUN_S`; after a request to stop of a lone rank 1."""
        if self.requests is None and stop:
            return 1
        return max(1, min(most, int(LONGEST_RUN_S / self._agreed_step_s)))

    def ask(self, stop: bool) -> None:
        """Changes what this rank tells the others in the steps that come next."""
        if self.requests is not None:
            self.requests.change(stop, self._own_step_s if self._tells else 0.0)

    def note(self, own_step_s: float, told_step_s: float) -> None:
        """Notes the time of the last steps, in seconds a step: this rank's own, and what their tail says, or 0."""
        self._own_step_s = own_step_s
        if self.requests is None:
            self._agreed_step_s = own_step_s
        elif told_step_s:
            self._agreed_step_s = told_step_s
