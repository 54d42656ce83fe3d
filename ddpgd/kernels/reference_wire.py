"""`WireOps` in NumPy: the definition that kernels are proved against, bit for bit."""

from ddpgd.kernels import reference_codec, reference_low_rank, reference_sparse
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

    def accumulate(self, values: Array, factor: float, velocity: Array | None, momentum: float, kept: Array) -> None:
        reference_sparse.accumulate(values, factor, velocity, momentum, kept)

    def select(self, kept: Array, velocity: Array | None, indices: Array, values: Array) -> None:
        reference_sparse.select(kept, velocity, indices, values)

    def scatter_add(self, indices: Array, values: Array, factor: float, out: Array) -> None:
        reference_sparse.scatter_add(indices, values, factor, out)

    def project(self, matrix: Array, right: Array, left: Array) -> None:
        reference_low_rank.project(matrix, right, left)

    def orthonormalise(self, matrix: Array, spare: Array | None) -> None:
        reference_low_rank.orthonormalise(matrix, spare)

    def project_back(self, matrix: Array, left: Array, right: Array) -> None:
        reference_low_rank.project_back(matrix, left, right)

    def add_product(self, left: Array, right: Array, factor: float, matrix: Array) -> None:
        reference_low_rank.add_product(left, right, factor, matrix)
