"""The contract of what codecs are made of, as `kernels.ops` is that of a step: n elements of a flat float32 vector."""

from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class WireOps(Protocol):
    """What a backend does for wires. As for `Ops`: outputs are overwritten, arrays are C-contiguous, nobody waits."""

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
