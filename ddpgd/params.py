"""Layout and initialisation: every tensor of a network in one flat float32 vector, reached through named views."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.philox import Purpose, uniforms
from ddpgd.kernels.words import BLOCK

_ALIGN = 32


@dataclass(frozen=True)
class Tensor:
    """A named window of the flat vector: elements [start, start + size), seen as `shape`."""

    name: str
    shape: tuple[int, ...]
    start: int

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


def dense_layout(sizes: Sequence[int]) -> Layout:
    """Weights (K, N) and biases (N,) of a chain of dense layers K -> N, for consecutive `sizes`."""
    tensors: list[Tensor] = []
    start = 0
    for number, (num_inputs, num_outputs) in enumerate(pairwise(sizes), start=1):
        for name, shape in (("weight", (num_inputs, num_outputs)), ("bias", (num_outputs,))):
            tensors.append(Tensor(f"dense{number}.{name}", shape, start))
            start = _round_up(start + tensors[-1].size, _ALIGN)
    return Layout(tuple(tensors), _round_up(start, BLOCK))


def initialise(layout: Layout, init: str, seed: int) -> NDArray[np.float32]:
    """Initial params, float32 (layout.size,), made on the host from Philox words: uniform weights, zero biases.

    he:     bound sqrt(6 / K).       He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015.
    xavier: bound sqrt(6 / (K + N)). Glorot, Bengio, "Understanding the difficulty of training deep networks", 2010.
    """
    vector = np.zeros(layout.size, dtype=np.float32)
    for index, tensor in enumerate(_weights(layout)):
        num_inputs, num_outputs = tensor.shape
        fan = {"he": num_inputs, "xavier": num_inputs + num_outputs}[init]
        bound = math.sqrt(6.0 / fan)
        draws = uniforms(seed, Purpose.PARAMS, index, tensor.size)
        tensor.view(vector)[...] = ((2.0 * draws - 1.0) * bound).reshape(tensor.shape)
    return vector


def _weights(layout: Layout) -> Iterator[Tensor]:
    return (tensor for tensor in layout.tensors if len(tensor.shape) == 2)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
