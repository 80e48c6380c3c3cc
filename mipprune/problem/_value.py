"""Value of a mask and its best weights, recomputed from the data."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mipprune.problem._box import boxed_weights
from mipprune.problem._term import Term

__all__ = ["best_weights", "quadratic_form", "solve_psd", "value_of_weights"]

Floats = NDArray[np.float64]

BLOCK = 128
"""Rows that are substituted at a time."""


def solve_psd(matrix: Floats, right: Floats) -> Floats:
    """Solve ``matrix @ x = right`` for a positive semidefinite matrix.

    Singular matrices are solved in their range space (least norm): adding
    jitter instead would raise the value of a mask.
    """
    if not matrix.size:
        return np.zeros_like(right)
    try:
        factor: Floats | None = np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
    except np.linalg.LinAlgError:
        factor = None
    if factor is not None:
        pivots = np.diag(factor)
        if pivots.min() > 1e-6 * pivots.max():
            return _solve_upper(factor.T, _solve_lower(factor, right))
    eigenvalues, vectors = np.linalg.eigh(matrix)
    floor = eigenvalues[-1] * matrix.shape[0] * np.finfo(np.float64).eps
    safe = eigenvalues > max(floor, 0.0)
    inverse = np.zeros_like(eigenvalues)
    inverse[safe] = 1.0 / eigenvalues[safe]
    return vectors @ (inverse[:, None] * (vectors.T @ right))


def _solve_lower(factor: Floats, right: Floats) -> Floats:
    """Forward substitution in blocks of rows; a general solve would factorise again."""
    solution = np.empty_like(right)
    for first in range(0, len(factor), BLOCK):
        own = slice(first, first + BLOCK)
        rest = right[own] - factor[own, :first] @ solution[:first]
        solution[own] = np.linalg.solve(factor[own, own], rest)
    return solution


def _solve_upper(factor: Floats, right: Floats) -> Floats:
    """Backward substitution in blocks of rows."""
    solution = np.empty_like(right)
    for first in reversed(range(0, len(factor), BLOCK)):
        own, last = slice(first, first + BLOCK), first + BLOCK
        rest = right[own] - factor[own, last:] @ solution[last:]
        solution[own] = np.linalg.solve(factor[own, own], rest)
    return solution


def best_weights(term: Term, mask: NDArray[np.bool_]) -> Floats:
    """Minimiser of a term under a mask, float64 (d, m), zero outside it."""
    rows = term.rows(mask)
    weights = np.zeros_like(term.cross)
    gram = term.damped_gram[np.ix_(rows, rows)]
    solution = solve_psd(gram, term.cross[rows])
    if term.has_box:
        limit = term.big_m[term.channel_of_row][rows]
        solution = boxed_weights(gram, term.cross[rows], limit, solution)
    weights[rows] = solution
    return weights


def value_of_weights(term: Term, weights: Floats, mask: NDArray[np.bool_]) -> float:
    """Loss of given weights, ridge included; never below the minimum over weights."""
    rows = term.rows(mask)
    w = weights[rows]
    gram = term.damped_gram[np.ix_(rows, rows)]
    return float(0.5 * np.vdot(w, gram @ w) - np.vdot(term.cross[rows], w) + 0.5 * term.energy)


def quadratic_form(terms: Sequence[Term]) -> tuple[Floats, Floats]:
    """``vector'y + y'matrix y / 2`` of weights that are either kept or zero.

    ``terms`` have one row and one response per channel (``Term.scaled_channels``).
    As y is binary, the diagonal moves into the vector.
    """
    matrix = sum((term.damped_gram for term in terms), np.zeros_like(terms[0].gram))
    vector = -sum((term.cross[:, 0] for term in terms), np.zeros(len(matrix)))
    vector = vector + 0.5 * np.diag(matrix)
    matrix = matrix.copy()
    np.fill_diagonal(matrix, 0.0)
    return matrix, vector
