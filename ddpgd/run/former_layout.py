"""Vectors in checkpoints of earlier versions, whose layers follow each other without gaps: moved to today's places."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.params import Layout, Parameter, layout_of

VECTOR_FORMAT = 2
"""The number of today's form of vectors, a fact of checkpoints; those without one have the first."""
_OTHERS = ("params.", "wire.", "outer.wire.")
"""Beginnings of the names of arrays that are not vectors of all params."""


def moved(arrays: Mapping[str, NDArray[Any]], layout: Layout) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a checkpoint of the first form, as one of today has them.

    Args:
        arrays: Those that are not vectors of params stay as they are, and so do vectors of another length.
        layout: Today's, of the same network.
    """
    whole = (Parameter(name, shape) for name, shape in layout.shapes.items())
    former = layout_of([tuple(whole)])
    is_vector = {name: not name.startswith(_OTHERS) and array.shape == (former.size,) for name, array in arrays.items()}
    return {name: _moved(array, former, layout) if is_vector[name] else array for name, array in arrays.items()}


def _moved(vector: NDArray[Any], former: Layout, layout: Layout) -> NDArray[Any]:
    out = np.zeros(layout.size, vector.dtype)
    layout.fill(out, former.whole_tensors(vector))
    return out
