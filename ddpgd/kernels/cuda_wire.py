"""`WireOps` on a GPU: which kernel, over which grid."""

import numpy as np

from ddpgd.kernels.cuda_launch import THREADS, Launcher, check, count_of
from ddpgd.kernels.wire_ops import Array

_FORMATS = {np.dtype(np.float16): "float16", np.dtype(np.uint16): "bfloat16", np.dtype(np.int8): "int8"}


class CudaWire:
    """`WireOps` in CUDA, on the stream of `launch`."""

    def __init__(self, launch: Launcher) -> None:
        self._launch = launch

    def random_words(self, key: Array, out: Array) -> None:
        grid = count_of(out.size, 4 * THREADS)
        self._launch("philox.cu", "random_words", (grid,), (THREADS,), key, out, np.int64(out.size))

    def encode(
        self, values: Array, residual: Array | None, key: Array, first: int, coded: Array, exponents: Array
    ) -> None:
        check(values, np.float32)
        form = _FORMATS[coded.dtype]
        draws = (key, np.int64(first)) if form == "int8" else ()
        arguments = values, residual, *draws, _words(coded), exponents, np.int64(values.size)
        self._launch("codec.cu", f"encode_{form}", (len(exponents),), (THREADS,), *arguments)

    def decode(self, coded: Array, exponents: Array, values: Array) -> None:
        form, where = _FORMATS[coded.dtype], ((len(exponents),), (THREADS,))
        self._launch("codec.cu", f"decode_{form}", *where, _words(coded), exponents, values, np.int64(values.size))


def _words(coded: Array) -> Array:
    """16-bit formats as the words that kernels take and give."""
    return coded.view(np.uint16) if coded.dtype == np.float16 else coded
