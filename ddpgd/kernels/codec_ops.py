"""The contract of what codecs are made of, as `kernels.ops` is that of a step: n elements of a flat float32 vector."""

from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class WireOps(Protocol):
    """Ops of a backend for wires. As for `Ops`: outputs are overwritten, arrays are C-contiguous, no call waits."""

    def random_words(self, key: Array, out: Array) -> None:
        """The first raw words, uint64 (n,), of a stream as `philox.words` defines it.

        key uint64 (3,): seed, purpose, index, where the backend computes. Salmon et al., "Parallel random numbers: as
        easy as 1, 2, 3", 2011.
        """

    def encode(
        self, values: Array, residual: Array | None, key: Array, first: int, coded: Array, exponents: Array
    ) -> None:
        """By blocks of 1,024: coded = round((values + residual) 2^e), residual = what that lost (None: nothing kept).

        The dtype of coded (n,) is the format: float16; uint16, which is bfloat16; int8. exponents int16, one e a block:
        the block's largest magnitude comes to lie in [2^14, 2^15) for float16, [1, 2) for bfloat16, [63.5, 127] for
        int8, as near as e in -126 to 126 can bring it; e is 0 for a block of zeros. float16 and bfloat16 round to
        nearest even. int8 rounds down or up at random, so that its mean is exact to 2^-25: floor(v + u) with v the
        scaled value to 24 binary places and u a 24-bit uniform draw, the upper bits of the low (first + i even) or high
        (odd) half of word (first + i) // 2 of `random_words`, first + i being the element's place in the whole vector.
        A block that holds an infinity or a NaN has e = 127 and is decoded to NaN (int8) or as it is (the others, e = 0);
        the residual is 0 where what is decoded is not finite. Magnitudes below 2^-126 count as zeros throughout.
        """

    def decode(self, coded: Array, exponents: Array, values: Array) -> None:
        """values = coded 2^-e, float32 (n,): the inverse of `encode` but for rounding."""

    def accumulate(self, values: Array, factor: float, velocity: Array | None, momentum: float, kept: Array) -> None:
        """velocity = momentum velocity + factor values; kept = kept + velocity. velocity None: kept = kept + factor values.

        values, velocity and kept (n,). Momentum correction of Lin et al., "Deep gradient compression", 2018, section 3.2.
        """

    def select(self, kept: Array, velocity: Array | None, indices: Array, values: Array) -> None:
        """Takes the k elements of largest magnitude out of kept (n,): their places, ascending, and what stood there.

        indices uint32 (k,), values (k,), 1 <= k <= n. Of equal magnitudes the first are taken; a NaN is larger than all.
        At these places kept and, where it is given, velocity become 0: the paper's momentum factor masking, section 3.3.
        """

    def scatter_add(self, indices: Array, values: Array, factor: float, out: Array) -> None:
        """out[indices[i]] += factor values[i]: indices uint32 (k,), all different; values (k,), out (n,)."""

    def project(self, matrix: Array, right: Array, left: Array) -> None:
        """left = matrix right. matrix (K, N), right (N, r), left (K, r); r is 1 to 32.

        This and the next three are the steps of Vogels, Karimireddy, Jaggi, "PowerSGD", 2019, algorithm 1.
        """

    def orthonormalise(self, matrix: Array, spare: Array | None) -> None:
        """Makes the columns of matrix (K, r) orthonormal, in place, one after the other: Gram and Schmidt's process, twice.

        A column of which less than 2^-10 is left by that, or that was 0, becomes that of `spare` (K, r), as it stands;
        0 where there is none. Sums are float32.
        """

    def project_back(self, matrix: Array, left: Array, right: Array) -> None:
        """right = matrix^T left. matrix (K, N), left (K, r), right (N, r)."""

    def add_product(self, left: Array, right: Array, factor: float, matrix: Array) -> None:
        """matrix = matrix + factor left right^T. left (K, r), right (N, r), matrix (K, N)."""
