"""Rounds: the clients of each, and the work of each client; pure functions of the seed and the number of the round."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.data.batches import Batches
from ddpgd.kernels.philox import Purpose, permutation, uniforms


class Task(NamedTuple):
    """The work of a client in a round: passes over its samples; `arrives`: the server gets its update."""

    client: int
    num_passes: int
    arrives: bool


class Rounds:
    """Tasks of rounds, by position: the leaves of the canonical sum.

    Clients are sorted by size, then dealt to positions in bit-reversed order, so that any contiguous range of positions
    costs about as much as another of its length.
    """

    def __init__(
        self,
        seed: int,
        parts: list[NDArray[np.int64]],
        clients_per_round: int,
        local_epochs: int,
        drop: float = 0.0,
        stragglers: float = 0.0,
    ) -> None:
        """`parts`: the samples of each client. `drop`, `stragglers`: probabilities, for each client in each round."""
        self.seed = seed
        self.parts = parts
        self.clients_per_round = clients_per_round
        self.local_epochs = local_epochs
        self._drop = drop
        self._stragglers = stragglers
        self._positions = _bit_reversed(clients_per_round)
        self._last: tuple[int, list[Task]] = -1, []

    def tasks(self, number: int) -> list[Task]:
        """Returns the tasks of round `number` (from 0), by position."""
        if self._last[0] != number:
            self._last = number, self._draw(number)
        return self._last[1]

    def samples(self, number: int) -> int:
        """Returns the number of samples that the clients of a round compute whose updates arrive, each pass counted."""
        return sum(len(self.parts[task.client]) * task.num_passes for task in self.tasks(number) if task.arrives)

    def key(self, number: int, client: int) -> int:
        """Returns the index of a client in a round, for random words."""
        return number * len(self.parts) + client

    def _draw(self, number: int) -> list[Task]:
        chosen = permutation(self.seed, number, len(self.parts), Purpose.CLIENTS)[: self.clients_per_round].tolist()
        chosen.sort(key=lambda client: (-len(self.parts[client]), client))
        tasks: list[Task] = [Task(0, 0, False)] * len(chosen)
        for position, client in zip(self._positions, chosen, strict=True):
            tasks[position] = self._task(number, client)
        return tasks

    def _task(self, number: int, client: int) -> Task:
        key = self.key(number, client)
        lost = float(uniforms(self.seed, Purpose.DROP, key, 1)[0]) < self._drop
        late, part = uniforms(self.seed, Purpose.STRAGGLE, key, 2).tolist()
        passes = 1 + int(part * (self.local_epochs - 1)) if late < self._stragglers else self.local_epochs
        return Task(client, passes, not lost)


class ClientBatches(Batches):
    """Batches in which an epoch is one pass of one client over its samples, in one round.

    Pass `e` at `position` of round `r` is epoch (r * clients_per_round + position) * local_epochs + e. Each has as many step
    numbers as the largest client has steps; a smaller one leaves the last of them out.
    """

    def __init__(self, rounds: Rounds, client_batch: int | None, micro_batch: int) -> None:
        """`client_batch`: samples in a step of a client; None: all that it has."""
        most = max(map(len, rounds.parts))
        batch = min(client_batch or most, most)
        super().__init__(most, batch, min(micro_batch, batch), self._padded_order, num_epochs=0)
        self._rounds = rounds

    def first_epoch(self, number: int, position: int) -> int:
        """Returns the epoch of the first pass at a position of a round."""
        return (number * self._rounds.clients_per_round + position) * self._rounds.local_epochs

    def num_steps(self, epoch: int) -> int:
        """Returns the number of steps of a pass."""
        return -(-self._size(epoch) // self.global_batch)

    def round(self, step: int) -> int:
        """Returns the round of a client's step."""
        return self.epoch(step) // (self._rounds.clients_per_round * self._rounds.local_epochs)

    def samples(self, step: int) -> int:
        first = step % self.steps_per_epoch * self.global_batch
        return min(self.global_batch, self._size(self.epoch(step)) - first)

    def num_full_steps(self, step: int) -> int:
        return self._size(self.epoch(step)) // self.global_batch - step % self.steps_per_epoch

    def _part(self, epoch: int) -> tuple[int, NDArray[np.int64]]:
        """Returns the client of a pass, and its samples."""
        position = epoch // self._rounds.local_epochs
        number, position = divmod(position, self._rounds.clients_per_round)
        client = self._rounds.tasks(number)[position].client
        return self._rounds.key(number, client), self._rounds.parts[client]

    def _size(self, epoch: int) -> int:
        return len(self._part(epoch)[1])

    def _padded_order(self, epoch: int) -> NDArray[np.int64]:
        """Returns a client's samples in the order of a pass, int64 (num_samples,); zeros follow them."""
        key, part = self._part(epoch)
        index = key * self._rounds.local_epochs + epoch % self._rounds.local_epochs
        order = np.zeros(self.num_samples, np.int64)
        order[: len(part)] = part[permutation(self._rounds.seed, index, len(part), Purpose.CLIENT_ORDER)]
        return order


def _bit_reversed(count: int) -> list[int]:
    """Returns 0 to count - 1, ordered by their bits read from the other end."""
    width = (count - 1).bit_length()
    reverse = (int(f"{number:0{width}b}"[::-1], 2) if width else 0 for number in range(1 << width))
    return [number for number in reverse if number < count]
