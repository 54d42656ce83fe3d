"""Codecs: the form that a segment's float32 values have on the wire."""

from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class Codec(Protocol):
    """A wire format. `name` is what `--wire` and the summary call it."""

    name: str

    def wire(self, values: Array) -> Array:
        """The array that travels in place of `values` (n,) float32; made once, before the first exchange."""

    def encode(self, values: Array, wire: Array) -> None:
        """Fills `wire` from `values`."""

    def decode(self, wire: Array, values: Array) -> None:
        """Fills `values` from `wire`."""


class Float32:
    """The values themselves: nothing to copy, nothing lost."""

    name = "float32"

    def wire(self, values: Array) -> Array:
        return values

    def encode(self, values: Array, wire: Array) -> None:
        pass

    def decode(self, wire: Array, values: Array) -> None:
        pass
