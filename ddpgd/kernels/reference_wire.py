"""`WireOps` in NumPy: the definition that kernels are proved against, bit for bit."""

from ddpgd.kernels import reference_codec
from ddpgd.kernels.wire_ops import Array


class ReferenceWire:
    """`WireOps` in NumPy."""

    def random_words(self, key: Array, out: Array) -> None:
        reference_codec.random_words(key, out)

    def encode(
        self, values: Array, residual: Array | None, key: Array, first: int, coded: Array, exponents: Array
    ) -> None:
        reference_codec.encode(values, residual, key, first, coded, exponents)

    def decode(self, coded: Array, exponents: Array, values: Array) -> None:
        reference_codec.decode(coded, exponents, values)
