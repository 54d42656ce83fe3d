"""The laws that a GPU's backend obeys beside the reference: the same bits. `bench` is supplied as for `op_laws`."""

import numpy as np
import pytest

from ddpgd.comm.wires import FORMATS
from ddpgd.kernels.philox import Purpose
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.reference.codecs import FORMULAS
from ddpgd.kernels.words import BLOCK
from op_laws import Bench
from oracles import uneven

LENGTH = 6 * BLOCK + 300


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [1.0, 1e-33, 1e28])
@pytest.mark.parametrize("has_residual", [False, True])
def test_codecs_have_the_bits_of_the_reference(bench: Bench, name: str, scale: float, has_residual: bool) -> None:
    """A block of zeros, one with zeros, blocks with NaN, infinity, huge and tiny values, and one that need not be scaled."""
    values, lost = uneven(3, LENGTH) * np.float32(scale), uneven(4, LENGTH) * np.float32(scale / 64)
    values[BLOCK : 2 * BLOCK + 100], lost[BLOCK : 2 * BLOCK + 50] = 0, 0
    values[3 * BLOCK + 7], values[4 * BLOCK + 9] = np.nan, -np.inf
    values[5 * BLOCK : 5 * BLOCK + 2] = 3.4028235e38, -1e-40
    values[6 * BLOCK :], lost[6 * BLOCK :] = np.linspace(-1, 1, 300) * FORMULAS[name].top, 0
    key = np.array([7, Purpose.ENCODE, 5], np.uint64)
    results = []
    for ops in (Reference(), bench.ops):
        residual = ops.from_host(lost.copy()) if has_residual else None
        codes, exponents = ops.zeros((LENGTH,), FORMATS[name].dtype), ops.zeros((-(-LENGTH // BLOCK),), np.int16)
        decoded = ops.zeros((LENGTH,), np.float32)
        ops.wire.encode(name, ops.from_host(values.copy()), residual, ops.from_host(key), 2 * BLOCK, codes, exponents)
        ops.wire.decode(name, codes, exponents, decoded)
        kept = [] if residual is None else [residual]
        results.append([np.array(ops.to_host(array)).view(np.uint8) for array in (codes, exponents, decoded, *kept)])
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
