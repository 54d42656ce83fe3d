"""The grid of ranks: data x pipeline x tensor parallel, and the groups of each rank in it.

Neighbours in the world share a layer (tensor), then follow each other in a pipeline, then compute other samples (data): what
sends most lies closest together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ddpgd.comm.transport import Alone, Transport

PIPELINE_SCHEDULES = ("1f1b", "gpipe")
"""The values of --pipeline-schedule."""


class Shape(NamedTuple):
    """The numbers of ranks along each axis of a grid."""

    data: int = 1
    pipeline: int = 1
    tensor: int = 1

    @property
    def replica(self) -> int:
        """The number of ranks that together hold one copy of the params."""
        return self.pipeline * self.tensor

    def place(self, rank: int) -> "Shape":
        """Returns the place of a rank of the world along each axis, from 0."""
        return Shape(rank // self.replica, rank // self.tensor % self.pipeline, rank % self.tensor)

    def apart(self, nodes: Sequence[str]) -> list[int]:
        """Returns the first ranks that share layers and are on several nodes; `nodes` has the name of each rank's."""
        for first in range(0, len(nodes), self.tensor):
            group = range(first, first + self.tensor)
            if len({nodes[rank] for rank in group}) > 1:
                return list(group)
        return []

    def __str__(self) -> str:
        return f"data {self.data} x pipeline {self.pipeline} x tensor {self.tensor}"


@dataclass(frozen=True)
class Grid:
    """The groups of one rank.

    Attributes:
        shape: The ranks along each axis.
        place: This rank's place along each axis.
        world: All ranks.
        data: The ranks that hold the same params as this one, and compute other samples.
        pipeline: The ranks with the other stages of the same layers' shards.
        tensor: The ranks that share this one's layers.
        replica: The ranks that together hold one copy of the params, this one among them.
    """

    shape: Shape
    place: Shape
    world: Transport
    data: Transport
    pipeline: Transport
    tensor: Transport
    replica: Transport

    def __str__(self) -> str:
        """The place of the rank, as in "data 1, pipeline 0, tensor 1"; empty where ranks compute other samples alone."""
        axes = (f"{axis} {number}" for axis, number in self.place._asdict().items())
        return ", ".join(axes) if self.shape.replica > 1 else ""


def split(world: Transport, shape: Shape) -> Grid:
    """Makes the groups of a rank; every rank calls it. Data parallel ranks alone are the world itself."""
    place = shape.place(world.rank)
    alone = Alone()
    if shape.replica == 1:
        return Grid(shape, place, world, world, alone, alone, alone)
    row = place.pipeline * shape.tensor + place.tensor
    data = world.split(row)
    replica = world.split(place.data)
    pipeline = alone if shape.pipeline == 1 else replica.split(place.tensor)
    tensor = alone if shape.tensor == 1 else replica.split(place.pipeline)
    return Grid(shape, place, world, data, pipeline, tensor, replica)
