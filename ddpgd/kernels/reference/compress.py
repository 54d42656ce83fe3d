"""`WireOps` in NumPy: the definition that kernels are proved against, bit for bit."""

from ddpgd.kernels.codec_ops import Array
from ddpgd.kernels.reference import codecs, low_rank, sparse


class ReferenceWire:
    """`WireOps` in NumPy."""

    def random_words(self, key: Array, out: Array) -> None:
        codecs.random_words(key, out)

    def encode(
        self,
        format: str,
        values: Array,
        residual: Array | None,
        key: Array,
        offset: int,
        codes: Array,
        exponents: Array,
    ) -> None:
        codecs.encode(format, values, residual, key, offset, codes, exponents)

    def decode(self, format: str, codes: Array, exponents: Array, values: Array) -> None:
        codecs.decode(format, codes, exponents, values)

    def accumulate(
        self, values: Array, factor: float, velocity: Array | None, momentum: float, residual: Array
    ) -> None:
        sparse.accumulate(values, factor, velocity, momentum, residual)

    def select(self, residual: Array, velocity: Array | None, indices: Array, values: Array) -> None:
        sparse.select(residual, velocity, indices, values)

    def scatter_add(self, indices: Array, values: Array, factor: float, out: Array) -> None:
        sparse.scatter_add(indices, values, factor, out)

    def project(self, matrix: Array, right: Array, left: Array) -> None:
        low_rank.project(matrix, right, left)

    def orthonormalise(self, matrix: Array, spare: Array | None) -> None:
        low_rank.orthonormalise(matrix, spare)

    def project_back(self, matrix: Array, left: Array, right: Array) -> None:
        low_rank.project_back(matrix, left, right)

    def add_product(self, left: Array, right: Array, factor: float, matrix: Array) -> None:
        low_rank.add_product(left, right, factor, matrix)
