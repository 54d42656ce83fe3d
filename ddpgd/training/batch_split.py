"""The algebra of a step in words: the global batch as micro-batches over ranks."""

import math
from dataclasses import dataclass

from ddpgd.comm.tree import ranges
from ddpgd.config.units import plural


@dataclass(frozen=True)
class Algebra:
    """The algebra of a full step: M = ceil(global_batch / micro_batch) micro-batches over W ranks, or replicas of several."""

    global_batch: int
    micro_batch: int
    world_size: int
    noun: str = "rank"

    @property
    def num_micro_batches(self) -> int:
        return math.ceil(self.global_batch / self.micro_batch)

    def __str__(self) -> str:
        """ "global batch 512 = 8 micro-batches of 64 = 4 ranks x 2 accumulated"."""
        total, world_size = self.num_micro_batches, self.world_size
        last = self.global_batch - (total - 1) * self.micro_batch
        size = f"{self.micro_batch}" if last == self.micro_batch else f"{self.micro_batch} (the last of {last})"
        shares = [len(share) for share in ranges(total, world_size)]
        fewest, most = min(shares), max(shares)
        accumulated = f"{most}" if fewest == most else f"{fewest} {'or' if most == fewest + 1 else 'to'} {most}"
        ranks = plural(world_size, self.noun)
        micro_batches = f"{total} micro-batch{'es' if total > 1 else ''}"
        return f"global batch {self.global_batch} = {micro_batches} of {size} = {ranks} x {accumulated} accumulated"
