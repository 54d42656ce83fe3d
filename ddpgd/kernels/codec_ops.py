"""The contract of the ops of wires: codecs, sparse and low-rank sums, on n elements of a flat float32 vector."""

from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]

NOT_FINITE = 127
"""The exponent of a block that holds an infinity or a NaN."""


class WireOps(Protocol):
    """Ops of a backend for wires. As for `Ops`: outputs are overwritten, arrays are C-contiguous, no call waits."""

    def random_words(self, key: Array, out: Array) -> None:
        """Fills `out`, uint64 (n,), with the first words of a stream as `philox.words` defines it.

        key uint64 (3,): seed, purpose, index, where the backend computes. Salmon et al., "Parallel random numbers: as
        easy as 1, 2, 3", 2011.
        """

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
        """Encodes blocks of 1,024 values: codes = round((values + residual) 2^e); residual = what that lost.

        A power of two scales each block so that its largest magnitude lies in (top / 2, top], as near as e in -126 to 126
        can bring it; e is 0 for a block of zeros. A block that holds an infinity or a NaN has codes 0 and e = `NOT_FINITE`,
        and is decoded to NaN. The residual is 0 where the decoded value is not finite. Magnitudes below 2^-126 count as 0
        throughout.

        Args:
            format: A row of `comm.wires.FORMATS`; its formula has the same name.
            values: float32 (n,).
            residual: float32 (n,), or None: what is lost is not kept.
            key: As for `random_words`. In formats that round at random, element i of the whole vector has a 24-bit draw: the
                upper bits of the low (i even) or high (i odd) half of word i // 2.
            offset: The place of the first value in the whole vector.
            codes: (n,) of the format's dtype.
            exponents: int16 (ceil(n / 1024),), one e a block.
        """

    def decode(self, format: str, codes: Array, exponents: Array, values: Array) -> None:
        """values = codes 2^-e, float32 (n,): the inverse of `encode` but for rounding."""

    def accumulate(
        self, values: Array, factor: float, velocity: Array | None, momentum: float, residual: Array
    ) -> None:
        """velocity = momentum velocity + factor values; residual += velocity. velocity None: residual += factor values.

        values, velocity, residual float32 (n,). The momentum correction of Lin et al., "Deep gradient compression", 2018,
        section 3.2.
        """

    def select(self, residual: Array, velocity: Array | None, indices: Array, values: Array) -> None:
        """Moves the k elements of largest magnitude from the residual to `values`.

        Args:
            residual: float32 (n,); the elements become 0.
            velocity: float32 (n,), or None; the elements become 0: the paper's momentum factor masking, section 3.3.
            indices: uint32 (k,), 1 <= k <= n: the places of the elements, ascending. Of equal magnitudes the first are taken;
                NaN is larger than all.
            values: float32 (k,).
        """

    def scatter_add(self, indices: Array, values: Array, factor: float, out: Array) -> None:
        """out[indices[i]] += factor values[i]: indices uint32 (k,), all different; values (k,), out (n,)."""

    def project(self, matrix: Array, right: Array, left: Array) -> None:
        """left = matrix right. matrix (K, N), right (N, r), left (K, r); r is 1 to 32.

        This and the next three are the steps of Vogels, Karimireddy, Jaggi, "PowerSGD", 2019, algorithm 1.
        """

    def orthonormalise(self, matrix: Array, spare: Array | None) -> None:
        """Makes the columns of matrix (K, r) orthonormal, in place, by the Gram-Schmidt process, applied twice.

        A column of zeros, or one of which less than 2^-10 is left, becomes the unchanged column of `spare` (K, r), or 0
        without it. Sums are float32.
        """

    def project_back(self, matrix: Array, left: Array, right: Array) -> None:
        """right = matrix^T left. matrix (K, N), left (K, r), right (N, r)."""

    def add_product(self, left: Array, right: Array, factor: float, matrix: Array) -> None:
        """matrix = matrix + factor left right^T. left (K, r), right (N, r), matrix (K, N)."""
