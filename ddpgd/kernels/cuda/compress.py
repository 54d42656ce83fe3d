"""`WireOps` on a GPU: the kernels and their grids."""

import numpy as np

from ddpgd.kernels.codec_ops import Array
from ddpgd.kernels.cuda.launcher import THREADS, Launcher, by_fours, check, count_of

SEARCH_WORDS = 2 + 2048
"""Words of a `Search`, as `sparse.cu` lays it out."""
DIGITS = (20, 10, 0)
"""The first bits of the digits of a magnitude, from the top."""
COUNTING_BLOCKS = 1024
"""The most thread blocks that count digits: each adds its counts to those of all. Not yet measured."""
COLUMNS, WARPS, ROWS = 4, 8, 8
"""The part of a low-rank product that a thread block computes, as in `low_rank.cu`."""


class CudaWire:
    """`WireOps` in CUDA, on the stream of `launch`."""

    def __init__(self, launch: Launcher) -> None:
        self._launch = launch
        self._searches: dict[int, tuple[Array, Array]] = {}

    def random_words(self, key: Array, out: Array) -> None:
        grid = count_of(out.size, 4 * THREADS)
        self._launch("philox.cu", "random_words", (grid,), (THREADS,), key, out, np.int64(out.size))

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
        check(values, np.float32)
        check(exponents, np.int16)
        arguments = values, residual, key, np.int64(offset), codes, exponents, np.int64(values.size)
        self._launch("codec.cu", f"encode_{format}", (len(exponents),), (THREADS,), *arguments)

    def decode(self, format: str, codes: Array, exponents: Array, values: Array) -> None:
        check(exponents, np.int16)
        check(values, np.float32)
        arguments = codes, exponents, values, np.int64(values.size)
        self._launch("codec.cu", f"decode_{format}", (len(exponents),), (THREADS,), *arguments)

    def accumulate(
        self, values: Array, factor: float, velocity: Array | None, momentum: float, residual: Array
    ) -> None:
        for array in (values, residual, *(() if velocity is None else (velocity,))):
            check(array, np.float32)
            assert array.size == residual.size, f"{array.size} elements, wanted {residual.size}"
        factors = values, np.float32(factor), velocity, np.float32(momentum)
        self._launch("sparse.cu", "accumulate", *by_fours(residual), *factors, residual, np.int64(residual.size))

    def select(self, residual: Array, velocity: Array | None, indices: Array, values: Array) -> None:
        check(residual, np.float32)
        check(indices, np.uint32)
        check(values, np.float32)
        (num_blocks,), block = by_fours(residual)
        size, (search, marks) = np.int64(residual.size), self._search(num_blocks)
        for shift in map(np.int32, DIGITS):
            grid = (min(num_blocks, COUNTING_BLOCKS),)
            self._launch("sparse.cu", "count_digits", grid, block, residual, size, shift, search)
            self._launch("sparse.cu", "find_digit", (1,), block, shift, np.uint32(indices.size), search)
        self._launch("sparse.cu", "count_marks", (num_blocks,), block, residual, size, search, marks)
        self._launch("sparse.cu", "scan_marks", (1,), (1024,), marks, np.int64(num_blocks))
        found = search, marks, indices, values
        self._launch("sparse.cu", "take_marked", (num_blocks,), block, residual, velocity, size, *found)

    def scatter_add(self, indices: Array, values: Array, factor: float, out: Array) -> None:
        check(indices, np.uint32)
        check(values, np.float32)
        check(out, np.float32)
        where = (count_of(indices.size, THREADS),), (THREADS,)
        arguments = indices, values, np.float32(factor), out, np.int64(indices.size)
        self._launch("sparse.cu", "scatter_add", *where, *arguments)

    def project(self, matrix: Array, right: Array, left: Array) -> None:
        grid = (count_of(len(left), WARPS), count_of(left.shape[1], COLUMNS))
        sizes = _product(left, right, matrix)
        self._launch("low_rank.cu", "project", grid, (THREADS,), matrix, right, left, *sizes)

    def orthonormalise(self, matrix: Array, spare: Array | None) -> None:
        for array in (matrix, *(() if spare is None else (spare,))):
            check(array, np.float32)
            assert array.shape == matrix.shape, f"shape {array.shape}, wanted {matrix.shape}"
        self._launch("low_rank.cu", "orthonormalise", (1,), (1024,), matrix, spare, *map(np.int32, matrix.shape))

    def project_back(self, matrix: Array, left: Array, right: Array) -> None:
        grid = (count_of(len(right), 32), count_of(left.shape[1], COLUMNS))
        sizes = _product(left, right, matrix)
        self._launch("low_rank.cu", "project_back", grid, (THREADS,), matrix, left, right, *sizes)

    def add_product(self, left: Array, right: Array, factor: float, matrix: Array) -> None:
        grid = (count_of(len(left), ROWS), count_of(len(right), THREADS))
        sizes = _product(left, right, matrix)
        arguments = left, right, np.float32(factor), matrix
        self._launch("low_rank.cu", "add_product", grid, (THREADS,), *arguments, *sizes)

    def _search(self, num_blocks: int) -> tuple[Array, Array]:
        """Returns scratch of `select`: a search, and marks of so many blocks. Searches run one after the other."""
        if num_blocks not in self._searches:
            zeros = self._launch.zeros
            self._searches[num_blocks] = zeros((SEARCH_WORDS,), np.uint32), zeros((num_blocks,), np.uint64)
        return self._searches[num_blocks]


def _product(left: Array, right: Array, matrix: Array) -> tuple[np.int32, ...]:
    """Returns the rows and columns of the matrix, and the number of its factors' columns."""
    for array, shape in ((matrix, (len(left), len(right))), (left, left.shape), (right, (len(right), left.shape[1]))):
        check(array, np.float32)
        assert array.shape == shape, f"shape {array.shape}, wanted {shape}"
    return np.int32(len(left)), np.int32(len(right)), np.int32(left.shape[1])
