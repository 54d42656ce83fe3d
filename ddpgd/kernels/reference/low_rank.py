"""The reference of low-rank wires: a matrix as the product of two narrow ones."""

import numpy as np

from ddpgd.kernels.codec_ops import Array

LEAST_LEFT = 2.0**-10


def project(matrix: Array, right: Array, left: Array) -> None:
    """`WireOps.project`."""
    np.matmul(matrix, right, out=left)


def orthonormalise(matrix: Array, spare: Array | None) -> None:
    """`WireOps.orthonormalise`."""
    columns = np.ascontiguousarray(matrix.T)
    for number, column in enumerate(columns):
        before = np.sqrt(column @ column)
        for other in [*columns[:number], *columns[:number]]:
            column -= (other @ column) * other
        after = np.sqrt(column @ column)
        if after > LEAST_LEFT * before:
            column /= after
        else:
            column[...] = 0 if spare is None else spare[:, number]
    matrix[...] = columns.T


def project_back(matrix: Array, left: Array, right: Array) -> None:
    """`WireOps.project_back`."""
    np.matmul(matrix.T, left, out=right)


def add_product(left: Array, right: Array, factor: float, matrix: Array) -> None:
    """`WireOps.add_product`."""
    matrix += np.float32(factor) * left @ right.T
