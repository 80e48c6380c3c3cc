r"""Three or four removals left: the pairwise bound of every set at its own best t, compiled.

For a set T the minorant with :math:`Z_j = t P_{jj}^{-1} B_j` is largest at

.. math:: g(T) \ge \frac{(\sum_T \delta)^2}{\sum_T \delta + \sum_{i<j \in T} Q_{ij}},

so running through all sets beats any bound with one t for all.
"""

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._compiled import compiled

__all__ = ["MOST_FOR_FOUR", "exact_set", "set_bounds"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]

INFINITY = np.inf
MOST_FOR_FOUR = 40
"""Channels up to which all sets of four are run through."""


@compiled
def _close(total: float, coupled: float, paid: float) -> float:
    if coupled <= 0.0:
        return -paid
    return total * total / coupled - paid


@compiled
def _least_of_three(
    b: int,
    order: Integers,
    delta: Floats,
    q: Floats,
    prices: Floats,
    total: float,
    coupled: float,
    paid: float,
    row: Floats,
    target: float,
    least: Floats,
    outside: float,
) -> float:
    """Third members below position b of a set whose other members sum up as given.

    Lowers ``least[b']`` to the best set with b'; returns the least bound, and
    through ``least[-1]`` the least bound at or above the target.
    """
    best = INFINITY
    for a in range(b):
        k = order[a]
        sum_delta = total + delta[k]
        bound = _close(sum_delta, coupled + delta[k] + row[a], paid + prices[k])
        if bound < target:
            least[a] = min(least[a], bound)
            best = min(best, bound)
        else:
            outside = min(outside, bound)
    least[least.size - 1] = outside
    return best


@compiled
def set_bounds(
    n: int,
    s: int,
    order: Integers,
    delta: Floats,
    q: Floats,
    prices: Floats,
    target: float,
    bounds: Floats,
    drop: Bytes,
    least: Floats,
    row: Floats,
) -> float:
    """Bounds of the children "the last removed channel is order[c]" by all sets of s = 3, 4.

    ``drop[c, b]`` is set where no set below the target removes ``order[b]`` too.
    ``least`` and ``row`` are work space of n + 1; returns the least bound
    at or above the target.
    """
    outside = INFINITY
    for c in range(n):
        i = order[c]
        bounds[c] = INFINITY
        for a in range(n + 1):
            least[a] = INFINITY
        for b in range(c):
            j = order[b]
            total, paid = delta[i] + delta[j], prices[i] + prices[j]
            coupled = total + q[i, j]
            if s == 3:
                for a in range(b):
                    row[a] = q[i, order[a]] + q[j, order[a]]
                best = _least_of_three(
                    b, order, delta, q, prices, total, coupled, paid, row, target, least, outside
                )
                outside = least[n]
            else:
                best = INFINITY
                for a in range(b):
                    k = order[a]
                    for h in range(a):
                        row[h] = q[i, order[h]] + q[j, order[h]] + q[k, order[h]]
                    found = _least_of_three(
                        a,
                        order,
                        delta,
                        q,
                        prices,
                        total + delta[k],
                        coupled + delta[k] + q[i, k] + q[j, k],
                        paid + prices[k],
                        row,
                        target,
                        least,
                        outside,
                    )
                    outside = least[n]
                    least[a] = min(least[a], found)
                    best = min(best, found)
            least[b] = min(least[b], best)
            bounds[c] = min(bounds[c], best)
        for b in range(c):
            drop[c, b] = 1 if least[b] == INFINITY else 0
    return outside


@compiled
def exact_set(
    inverse: Floats, energy: Floats, members: Integers, s: int, g: int, work: Floats
) -> float:
    """Cost of removing s channels together, one term, from the stored triangles.

    ``work`` (2 * s * g, >= s * g); members in increasing order.
    """
    width = s * g
    lower, other = work[0:width], work[width : 2 * width]
    for a in range(s):
        for b in range(a + 1):
            for u in range(g):
                for v in range(g):
                    lower[a * g + u, b * g + v] = inverse[members[a] * g + u, members[b] * g + v]
                    # Only the upper triangle of K is stored.
                    entry = energy[members[b] * g + v, members[a] * g + u]
                    other[a * g + u, b * g + v] = entry
                    other[b * g + v, a * g + u] = entry
    # Cholesky of P_TT, and K <- L^-1 K L^-T, whose trace is wanted.
    for j in range(width):
        pivot = lower[j, j]
        scale = abs(pivot)
        for k in range(j):
            pivot -= lower[j, k] * lower[j, k]
        root = np.sqrt(pivot) if pivot > 1e-14 * scale + 1e-300 else 0.0
        lower[j, j] = root
        for i in range(j + 1, width):
            entry = lower[i, j]
            for k in range(j):
                entry -= lower[i, k] * lower[j, k]
            lower[i, j] = entry / root if root > 0.0 else 0.0
    total = 0.0
    for j in range(width):
        root = lower[j, j]
        if root == 0.0:
            for c in range(width):
                other[j, c] = 0.0
            continue
        for k in range(j):
            x = lower[j, k]
            for c in range(width):
                other[j, c] -= x * other[k, c]
        for c in range(width):
            other[j, c] /= root
    # Rows of L^-1 K are done; the diagonal of (L^-1 K) L^-T needs one forward solve a row.
    for r in range(width):
        for c in range(r + 1):
            entry = other[r, c]
            for k in range(c):
                entry -= other[r, k] * lower[c, k]
            other[r, c] = entry / lower[c, c] if lower[c, c] > 0.0 else 0.0
        total += other[r, r]
    return 0.5 * total
