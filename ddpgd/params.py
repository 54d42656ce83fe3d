"""Layout and initialisation: every tensor of a network in one flat float32 vector, reached through named views."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.philox import Purpose, uniforms
from ddpgd.kernels.words import BLOCK

_ALIGN = 32

Window = tuple[slice, ...]
"""A part of a tensor: a slice of each axis."""


class Parameter(NamedTuple):
    """A tensor that a layer declares, or the window of it that belongs to one shard.

    Attributes:
        name: Of the tensor.
        shape: Of the whole tensor.
        is_random: A matrix (K, N) that begins with random values; others begin with zeros.
        window: None: all of it.
        is_hidden: A weight matrix of a layer before the last: what rules that work on matrices update.
    """

    name: str
    shape: tuple[int, ...]
    is_random: bool = False
    window: Window | None = None
    is_hidden: bool = False


Unit = Sequence[Parameter]
"""The tensors of one shard of one layer: what always lies on one rank."""


@dataclass(frozen=True)
class Tensor:
    """A named window of the flat vector: elements [start, start + size), seen as `shape`.

    `whole_shape`, `window`: the tensor, and the part of it that this is.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    is_random: bool
    whole_shape: tuple[int, ...]
    window: Window
    is_hidden: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def view(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """This tensor inside `vector` (..., n): shape (..., *shape), no copy."""
        return vector[..., self.start : self.start + self.size].reshape((*vector.shape[:-1], *self.shape))


@dataclass(frozen=True)
class Layout:
    """Positions of tensors in a flat vector; what lies between them stays zero.

    Attributes:
        tensors: In the order of the vector.
        units: The part of the vector that each unit has: whole blocks.
        size: The vector's length.
    """

    tensors: tuple[Tensor, ...]
    units: tuple[slice, ...]
    size: int

    @property
    def num_params(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of whole tensors, by name."""
        return {tensor.name: tensor.whole_shape for tensor in self.tensors}

    def views(self, vector: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [tensor.view(vector) for tensor in self.tensors]

    def whole_tensors(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Returns the tensors by name, C-contiguous: views of `vector` (n,), or copies where they are cut."""
        whole: dict[str, NDArray[np.float32]] = {}
        for tensor in self.tensors:
            view = tensor.view(vector)
            if view.shape == tensor.whole_shape:
                whole[tensor.name] = view
            else:
                whole.setdefault(tensor.name, np.empty(tensor.whole_shape, vector.dtype))[tensor.window] = view
        return whole

    def fill(self, vector: NDArray[np.float32], whole: Mapping[str, NDArray[np.float32]]) -> None:
        """Puts whole tensors, by name, into `vector` (n,)."""
        for tensor in self.tensors:
            tensor.view(vector)[...] = whole[tensor.name][tensor.window]

    def spans_in(self, whole: "Layout") -> list[slice]:
        """Returns where the units of this layout lie in vectors of `whole`, which has them among others."""
        places = dict(zip(whole._keys(), whole.units, strict=True))
        return [places[key] for key in self._keys()]

    def sha256(self, vector: NDArray[np.float32]) -> str:
        """SHA-256 (hex) of the bytes of all whole tensors, in order, padding left out."""
        digest = hashlib.sha256()
        for tensor in self.whole_tensors(vector).values():
            digest.update(tensor.tobytes())
        return digest.hexdigest()

    def hashes(self, vector: NDArray[np.float32]) -> dict[str, str]:
        """The first 12 hex digits of each whole tensor's own SHA-256."""
        whole = self.whole_tensors(vector)
        return {name: hashlib.sha256(tensor.tobytes()).hexdigest()[:12] for name, tensor in whole.items()}

    def _keys(self) -> list[tuple[object, ...]]:
        """The first tensor of each unit, which tells it from the others."""
        first = {
            tensor.start: (tensor.name, *((part.start, part.stop) for part in tensor.window)) for tensor in self.tensors
        }
        return [first[unit.start] for unit in self.units]


def layout_of(units: Iterable[Unit]) -> Layout:
    """Returns the layout of units, in order: each begins at a block, and its tensors at multiples of 32 elements."""
    tensors: list[Tensor] = []
    spans: list[slice] = []
    start = 0
    for unit in units:
        end = start
        for name, shape, is_random, given, is_hidden in unit:
            window = given or tuple(slice(0, length) for length in shape)
            own = tuple(part.stop - part.start for part in window)
            tensors.append(Tensor(name, own, end, is_random, shape, window, is_hidden))
            end = _round_up(end + tensors[-1].size, _ALIGN)
        spans.append(slice(start, _round_up(end, BLOCK)))
        start = spans[-1].stop
    return Layout(tuple(tensors), tuple(spans), start)


INITS: dict[str, Callable[[int, int], int]] = {
    # He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015.
    "he": lambda num_inputs, _: num_inputs,
    # Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    "xavier": lambda num_inputs, num_outputs: num_inputs + num_outputs,
}
"""Initialisations, by the value of `--init`: weights (K, N) -> f, where they are uniform within sqrt(6 / f)."""


def initialise(layout: Layout, init: str, seed: int) -> NDArray[np.float32]:
    """Returns initial params, float32 (layout.size,), made on the host from Philox words: see `INITS`; biases are 0.

    Tensors are made whole, then cut: every cut of a network begins with the same weights.
    """
    whole = {name: np.zeros(shape, np.float32) for name, shape in layout.shapes.items()}
    for index, name in enumerate(dict.fromkeys(tensor.name for tensor in layout.tensors if tensor.is_random)):
        num_inputs, num_outputs = shape = whole[name].shape
        bound = math.sqrt(6.0 / INITS[init](num_inputs, num_outputs))
        draws = uniforms(seed, Purpose.PARAMS, index, whole[name].size)
        whole[name][...] = ((2.0 * draws - 1.0) * bound).reshape(shape)
    vector = np.zeros(layout.size, dtype=np.float32)
    layout.fill(vector, whole)
    return vector


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
