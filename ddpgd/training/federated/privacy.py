"""Privacy of clients: changes of bounded norm, noise on their sum, and the epsilon that both guarantee.

McMahan, Ramage, Talwar, Zhang, "Learning differentially private recurrent language models", 2018. Rounds sample a fixed number
of clients, so neighbours differ in one client, which is replaced: the sum changes by at most twice the clipping norm. Wang,
Balle, Kasiviswanathan, "Subsampled Rényi differential privacy and analytical moments accountant", 2019.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.philox import Purpose


class Privacy(NamedTuple):
    """The privacy of a run.

    Attributes:
        clip: The largest norm of a client's change; infinity: any.
        noise: The standard deviation of the noise on the sum, over `clip`.
        delta: The probability with which epsilon may be exceeded.
        population: Number of clients.
        sampled: Number of clients in a round.
        seed: The seed of the run, from which the noise is made.
        support: float32 (n,), 1 where there are params and 0 between them.
    """

    clip: float
    noise: float
    delta: float
    population: int
    sampled: int
    seed: int
    support: NDArray[np.float32]

    @property
    def is_on(self) -> bool:
        """True if changes are clipped; then clients count alike, and the mean is over all that were asked."""
        return self.clip < math.inf

    def factor(self, norm: float) -> float:
        """Returns the factor that clips a change of this norm."""
        return self.clip / norm if norm > self.clip else 1.0

    def scale(self, arrived: float) -> float:
        """Returns the factor that makes the mean of the sum of changes that `arrived`, a share of all weights.

        With clipping it does not depend on who arrived.
        """
        return 1.0 if self.is_on else 1 / arrived if arrived else 0.0

    def draw(self, number: int) -> NDArray[np.float32]:
        """Returns the noise of round `number` on the mean over all sampled clients, float32 (n,)."""
        stream = np.random.Philox(
            counter=np.array([0, 0, number, 0], np.uint64), key=np.array([self.seed, Purpose.NOISE], np.uint64)
        )
        drawn = np.random.Generator(stream).standard_normal(self.support.size, np.float32)
        return drawn * self.support * np.float32(self.noise * self.clip / self.sampled)

    def epsilon(self, num_rounds: int) -> float | None:
        """Returns epsilon after so many rounds, at `delta`; None: without noise, or rounds, there is none."""
        if not self.noise or not num_rounds:
            return None
        from dp_accounting import dp_event
        from dp_accounting.privacy_accountant import NeighboringRelation
        from dp_accounting.rdp import RdpAccountant

        accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
        sum_of_round = dp_event.GaussianDpEvent(self.noise / 2)
        event = dp_event.SampledWithoutReplacementDpEvent(self.population, self.sampled, sum_of_round)
        accountant.compose(event, num_rounds)
        return float(accountant.get_epsilon(self.delta))
