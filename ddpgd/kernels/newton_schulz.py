"""Orthogonalisation of a matrix: the iteration of Newton and Schulz with the constants of Muon.

X = M / (|M| + EPSILON), with the Frobenius norm; ITERATIONS times X = (a I + b A + c A A) X, where A = X X^T, on the side on
which A is the smaller. Singular values of X of 0.003 and more come to lie between 0.65 and 1.25, vectors stay.
Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

import math

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c."""
ITERATIONS = 5
EPSILON = 1e-7


def factor(shape: tuple[int, ...]) -> float:
    """Returns 0.2 sqrt(max(K, N)): an orthogonalised matrix times it has elements as large as changes of AdamW.

    Liu et al., "Muon is scalable for LLM training", 2025.

    >>> factor((100, 25))
    2.0
    """
    return 0.2 * math.sqrt(max(shape))


def multiplications(shape: tuple[int, ...]) -> int:
    """Returns the number of multiplications that orthogonalise a matrix (K, N).

    >>> multiplications((4, 2))
    200
    """
    rows, columns = shape
    side = min(shape)
    return ITERATIONS * side * (2 * rows * columns + side * side)
