"""Dropout in words: which units of which samples are left out, by the same formula on every backend.

Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: a simple way to prevent neural networks from
overfitting", 2014; inverted, so that an evaluation does nothing.
"""

from typing import Any, NamedTuple

from numpy.typing import NDArray

DRAWS = 1 << 16
"""Values of a unit's draw: four to a word of Philox, lowest bits first."""


class Rows(NamedTuple):
    """The samples of a pass: row r is number order[cursor[FIRST] + offset + r] of the data set, in epoch cursor[EPOCH]."""

    order: NDArray[Any]
    cursor: NDArray[Any]
    offset: int


class Dropout(NamedTuple):
    """Dropout of the inputs of a layer, whose number in the whole network begins at 1.

    >>> half = Dropout(seed=0, layer=1, probability=0.5)
    >>> half.threshold, half.scale
    (32768, 2.0)
    """

    seed: int
    layer: int
    probability: float

    @property
    def threshold(self) -> int:
        """The first draw with which a unit is kept."""
        return round(self.probability * DRAWS)

    @property
    def scale(self) -> float:
        """The factor of units that are kept: their mean stays as it is."""
        return DRAWS / (DRAWS - self.threshold)
