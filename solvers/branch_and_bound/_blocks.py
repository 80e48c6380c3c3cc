"""Block linear algebra of the search, compiled.

A node holds, for its n undecided channels with g rows each, the matrices
P = inverse over the kept rows and K = B B', of which only the lower blocks of
P and the upper blocks of K are stored and read (plus both diagonals).
"""

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._compiled import ZERO, compiled

__all__ = ["costs_of_singles", "downdate", "exact_pair", "interactions", "invert_block"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TINY = 1e-300


@compiled
def invert_block(block: Floats, out: Floats, g: int) -> None:
    """Inverse of a small positive definite matrix (Cholesky), into ``out``.

    A pivot that rounding has made non-positive is dropped: its row counts as
    costing nothing, which keeps every bound below the truth.
    """
    lower = np.zeros((g, g))
    inverse = np.zeros((g, g))
    for j in range(g):
        pivot = block[j, j]
        for k in range(j):
            pivot -= lower[j, k] * lower[j, k]
        if pivot <= 1e-14 * abs(block[j, j]) + TINY:
            continue
        root = np.sqrt(pivot)
        lower[j, j] = root
        for i in range(j + 1, g):
            entry = block[i, j]
            for k in range(j):
                entry -= lower[i, k] * lower[j, k]
            lower[i, j] = entry / root
    for j in range(g):
        if lower[j, j] == 0.0:
            continue
        inverse[j, j] = 1.0 / lower[j, j]
        for i in range(j + 1, g):
            if lower[i, i] == 0.0:
                continue
            entry = 0.0
            for k in range(j, i):
                entry -= lower[i, k] * inverse[k, j]
            inverse[i, j] = entry / lower[i, i]
    for i in range(g):
        for j in range(i + 1):
            entry = 0.0
            for k in range(i, g):
                entry += inverse[k, i] * inverse[k, j]
            out[i, j] = entry
            out[j, i] = entry


@compiled
def costs_of_singles(
    inverse: Floats, energy: Floats, n: int, g: int, diagonal: Floats, costs: Floats
) -> None:
    """Add ``delta_j = tr(P_jj^-1 K_jj) / 2`` to ``costs``; store ``P_jj^-1`` (n * g, g)."""
    for j in range(n):
        at = j * g
        invert_block(inverse[at : at + g, at : at + g], diagonal[at : at + g], g)
        total = 0.0
        for a in range(g):
            for b in range(g):
                total += diagonal[at + a, b] * energy[at + a, at + b]
        costs[j] += 0.5 * total


@compiled
def _apply_rows(
    block: Floats, source: Floats, at: int, g: int, first: int, stop: int, out: Floats
) -> None:
    """``out[u, first:stop] = sum_k block[u, k] * source[at + k, first:stop]``."""
    for u in range(g):
        target = out[u, first:stop]
        k = 0
        for c in range(stop - first):
            target[c] = 0.0
        while k + 2 < g:
            x, y, z = block[u, k], block[u, k + 1], block[u, k + 2]
            row0 = source[at + k, first:stop]
            row1 = source[at + k + 1, first:stop]
            row2 = source[at + k + 2, first:stop]
            for c in range(stop - first):
                target[c] += x * row0[c] + y * row1[c] + z * row2[c]
            k += 3
        while k < g:
            x = block[u, k]
            row0 = source[at + k, first:stop]
            for c in range(stop - first):
                target[c] += x * row0[c]
            k += 1


@compiled
def interactions(
    inverse: Floats,
    energy: Floats,
    n: int,
    g: int,
    diagonal: Floats,
    left: Floats,
    right: Floats,
    out: Floats,
) -> None:
    """Add ``Q_ij = tr(P_ii^-1 P_ij P_jj^-1 K_ji)`` to ``out`` (n, n), diagonal apart.

    ``left`` and ``right`` are work space (n * g, n * g).
    """
    for i in range(n):
        at = i * g
        block = diagonal[at : at + g]
        _apply_rows(block, inverse, at, g, ZERO, at, left[at : at + g])
        _apply_rows(block, energy, at, g, at + g, n * g, right[at : at + g])
    for i in range(n):
        for j in range(i):
            total = 0.0
            for u in range(i * g, i * g + g):
                for v in range(j * g, j * g + g):
                    total += left[u, v] * right[v, u]
            out[i, j] += total
            out[j, i] += total


@compiled
def _panel(
    matrix: Floats, i: int, chosen: Integers, n: int, g: int, lower: bool, out: Floats
) -> None:
    """Rows of channel i against the chosen channels, (g, n * g), from one triangle."""
    for c in range(n):
        j = chosen[c]
        stored = (j <= i) if lower else (j >= i)
        for u in range(g):
            for v in range(g):
                if stored:
                    out[u, c * g + v] = matrix[i * g + u, j * g + v]
                else:
                    out[u, c * g + v] = matrix[j * g + v, i * g + u]


@compiled
def _views(flat: Floats, width: int, g: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Panels of a downdate inside ``flat``, 6 * g * width numbers."""
    area = g * width
    return (
        flat[0:area].reshape(g, width),
        flat[area : 3 * area].reshape(2 * g, width),
        flat[3 * area : 4 * area].reshape(width, g),
        flat[4 * area : 6 * area].reshape(width, 2 * g),
    )


@compiled
def downdate(
    inverse: Floats,
    energy: Floats,
    i: int,
    chosen: Integers,
    n: int,
    g: int,
    pivot: Floats,
    new_inverse: Floats,
    new_energy: Floats,
    flat: Floats,
    first: Floats,
    second: Floats,
) -> None:
    r"""Matrices of the chosen channels once channel i is removed.

    :math:`P' = P - A P_{i\cdot}`, :math:`K' = K - A M^\top - M A^\top` with
    :math:`A = P_{\cdot i} P_{ii}^{-1}`, :math:`M = K_{\cdot i} - A K_{ii} / 2`.
    The products go through BLAS: twice the arithmetic of the triangles alone,
    several times faster.

    Parameters
    ----------
    chosen : increasing positions of the channels that stay undecided (n of them)
    pivot : float64 (g, g), P_ii^-1
    flat : work space of at least 7 * n * g * g numbers
    first, second : work space (n * g, n * g)
    """
    width = n * g
    if width == 0:
        return
    row_p, rows, column_a, columns = _views(flat, width, g)
    row_m, row_a = rows[0:g], rows[g : 2 * g]
    half = flat[6 * g * width : 7 * g * width].reshape(g, width)
    _panel(inverse, i, chosen, n, g, True, row_p)
    _panel(energy, i, chosen, n, g, False, row_m)
    _apply_rows(pivot, row_p, ZERO, g, ZERO, width, row_a)
    corner = np.empty((g, g))
    for u in range(g):
        for v in range(g):
            corner[u, v] = -0.5 * energy[i * g + u, i * g + v]
    _apply_rows(corner, row_a, ZERO, g, ZERO, width, half)
    for u in range(g):
        for c in range(width):
            row_m[u, c] += half[u, c]
            column_a[c, u] = row_a[u, c]
            columns[c, u] = row_a[u, c]
            columns[c, g + u] = row_m[u, c]
    np.dot(column_a, row_p, first)
    np.dot(columns, rows, second)
    for a in range(n):
        for u in range(g):
            row = a * g + u
            source = chosen[a] * g + u
            _subtract(inverse, source, chosen, ZERO, a + 1, g, first[row], new_inverse[row])
            _subtract(energy, source, chosen, a, n, g, second[row], new_energy[row])


@compiled
def _subtract(
    source: Floats,
    row: int,
    chosen: Integers,
    first: int,
    stop: int,
    g: int,
    product: Floats,
    out: Floats,
) -> None:
    """``out = source[row]`` at the chosen channels first..stop, less the product."""
    line = source[row]
    for c in range(first, stop):
        # Slices: an index that may be negative would keep the loop from being vectorised.
        at = chosen[c] * g
        x, y, z = line[at : at + g], product[c * g : c * g + g], out[c * g : c * g + g]
        for v in range(g):
            z[v] = x[v] - y[v]


@compiled
def exact_pair(
    inverse: Floats, energy: Floats, i: int, j: int, g: int, diagonal: Floats, work: Floats
) -> float:
    """Cost of removing j once i < j is removed, one term; ``work`` (5 * g, >= g)."""
    pivot = diagonal[i * g : i * g + g]
    at_i, at_j = i * g, j * g
    a = work[0:g]
    reduced = work[g : 2 * g]
    rest = work[2 * g : 3 * g]
    out = work[3 * g : 4 * g]
    product = work[4 * g : 5 * g]
    for u in range(g):
        for v in range(g):
            entry = 0.0
            for k in range(g):
                entry += inverse[at_j + u, at_i + k] * pivot[k, v]
            a[u, v] = entry
    # M = K_ji - A K_ii / 2, so that K' = K_jj - A M' - M A'
    for u in range(g):
        for v in range(g):
            entry = energy[at_i + v, at_j + u]
            for k in range(g):
                entry -= 0.5 * a[u, k] * energy[at_i + k, at_i + v]
            product[u, v] = entry
    for u in range(g):
        for v in range(g):
            p_entry = inverse[at_j + u, at_j + v]
            k_entry = energy[at_j + u, at_j + v]
            for k in range(g):
                p_entry -= a[u, k] * inverse[at_j + v, at_i + k]
                k_entry -= a[u, k] * product[v, k] + product[u, k] * a[v, k]
            reduced[u, v] = p_entry
            rest[u, v] = k_entry
    invert_block(reduced, out, g)
    total = 0.0
    for u in range(g):
        for v in range(g):
            total += out[u, v] * rest[u, v]
    return 0.5 * total
