"""Layout and initialisation: every tensor of a network in one flat float32 vector, reached through named views."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.philox import Purpose, uniforms
from ddpgd.kernels.words import BLOCK

_ALIGN = 32


class Parameter(NamedTuple):
    """A tensor that a layer declares. `is_random`: a matrix (K, N) that begins with random values, others with zeros."""

    name: str
    shape: tuple[int, ...]
    is_random: bool = False


@dataclass(frozen=True)
class Tensor:
    """A named window of the flat vector: elements [start, start + size), seen as `shape`."""

    name: str
    shape: tuple[int, ...]
    start: int
    is_random: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def view(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """This tensor inside `vector` (..., n): shape (..., *shape), no copy."""
        return vector[..., self.start : self.start + self.size].reshape((*vector.shape[:-1], *self.shape))


@dataclass(frozen=True)
class Layout:
    """Positions of the tensors. `size` is the vector's length, whole blocks; what lies between tensors stays zero."""

    tensors: tuple[Tensor, ...]
    size: int

    @property
    def num_params(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    def views(self, vector: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [tensor.view(vector) for tensor in self.tensors]

    def sha256(self, vector: NDArray[np.float32]) -> str:
        """SHA-256 (hex) of all tensors' bytes in layout order, padding left out."""
        digest = hashlib.sha256()
        for view in self.views(vector):
            digest.update(view.tobytes())
        return digest.hexdigest()

    def hashes(self, vector: NDArray[np.float32]) -> dict[str, str]:
        """The first 12 hex digits of each tensor's own SHA-256."""
        return {tensor.name: hashlib.sha256(tensor.view(vector).tobytes()).hexdigest()[:12] for tensor in self.tensors}


def layout_of(parameters: Iterable[Parameter]) -> Layout:
    """Returns the layout of the tensors that layers declare, in order, aligned to 32 elements."""
    tensors: list[Tensor] = []
    start = 0
    for name, shape, is_random in parameters:
        tensors.append(Tensor(name, shape, start, is_random))
        start = _round_up(start + tensors[-1].size, _ALIGN)
    return Layout(tuple(tensors), _round_up(start, BLOCK))


INITS: dict[str, Callable[[int, int], int]] = {
    # He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015.
    "he": lambda num_inputs, _: num_inputs,
    # Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    "xavier": lambda num_inputs, num_outputs: num_inputs + num_outputs,
}
"""Initialisations, by the value of `--init`: weights (K, N) -> f, where they are uniform within sqrt(6 / f)."""


def initialise(layout: Layout, init: str, seed: int) -> NDArray[np.float32]:
    """Returns initial params, float32 (layout.size,), made on the host from Philox words: see `INITS`; biases are 0."""
    vector = np.zeros(layout.size, dtype=np.float32)
    for index, tensor in enumerate(_weights(layout)):
        num_inputs, num_outputs = tensor.shape
        bound = math.sqrt(6.0 / INITS[init](num_inputs, num_outputs))
        draws = uniforms(seed, Purpose.PARAMS, index, tensor.size)
        tensor.view(vector)[...] = ((2.0 * draws - 1.0) * bound).reshape(tensor.shape)
    return vector


def _weights(layout: Layout) -> Iterator[Tensor]:
    return (tensor for tensor in layout.tensors if tensor.is_random)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
