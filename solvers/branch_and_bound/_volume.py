r"""Dual ascent on the pair relaxation of a node, compiled.

For psd :math:`\Psi` and skew-symmetric S, removing exactly s of n channels costs at least

.. math:: \min_{|T| = s} \sum_{i \in T} \Big[ b_i - \tfrac12 \tilde Q_{ii}
    - \tfrac12 \sum_{s - 1\ \text{largest}} (\tilde Q_{ij} + S_{ij}) \Big],
    \quad \tilde Q = Q + \Psi,

a concave function of :math:`V = \Psi + S`. With X the 0/1 rows that attain it, its
supergradient is ``-X / 2``. The volume algorithm (Barahona and Anbil 2000) steps from
the best V along the running mean of X, which tends to the primal pairs; Psi is projected onto
the psd cone. Every iterate is a valid bound.
"""

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._compiled import compiled

__all__ = ["climb"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

INFINITY = np.inf
LONGEST, PATIENCE = 1.0, 8


@compiled
def _rows(n: int, s: int, linear: Floats, off: Floats, rows: Floats, members: Integers) -> None:
    """Rows of the bound, and the s - 1 largest entries of each row of ``off``."""
    k = s - 1
    top = np.empty(s)
    for i in range(n):
        size = 0
        for j in range(n):
            value = off[i, j]
            if j == i or (size == k and (k == 0 or value <= top[k - 1])):
                continue
            if size == k:
                size -= 1
            at = size
            while at > 0 and top[at - 1] < value:
                top[at] = top[at - 1]
                members[i, at] = members[i, at - 1]
                at -= 1
            top[at] = value
            members[i, at] = j
            size += 1
        total = 0.0
        for c in range(k):
            total += top[c]
        rows[i] = linear[i] - 0.5 * off[i, i] - 0.5 * total


@compiled
def _evaluate(
    s: int,
    rows: Floats,
    members: Integers,
    weight: float,
    pairs: Floats,
    forced: Floats,
    without: Floats,
) -> float:
    """Sum of the s smallest rows, which enter the mean of X with ``weight``.

    Raises ``forced`` and ``without`` to the bounds with each channel removed and kept.
    """
    n = rows.size
    order = np.argsort(rows)
    total = 0.0
    for c in range(s):
        total += rows[order[c]]
    last = rows[order[s - 1]]
    following = rows[order[s]] if s < n else INFINITY
    for i in range(n):
        for j in range(n):
            pairs[i, j] *= 1.0 - weight
    for c in range(n):
        i = order[c]
        inside = c < s
        forced[i] = max(forced[i], total if inside else total - last + rows[i])
        without[i] = max(without[i], total - rows[i] + following if inside else total)
        if inside:
            pairs[i, i] += weight
            for k in range(s - 1):
                pairs[i, members[i, k]] += weight
    return total


@compiled
def _project(matrix: Floats) -> None:
    """Nearest psd matrix, as a product F F' and so symmetric to the last bit."""
    n = matrix.shape[0]
    values, vectors = np.linalg.eigh(matrix)
    first = 0
    while first < n and values[first] <= 0.0:
        first += 1
    factor = np.empty((n, n - first))
    for a in range(first, n):
        root = np.sqrt(values[a])
        for i in range(n):
            factor[i, a - first] = vectors[i, a] * root
    product = factor @ factor.T
    for i in range(n):
        for j in range(i + 1):
            matrix[i, j] = product[i, j]
            matrix[j, i] = product[i, j]


@compiled
def _step(
    rise: float, pairs: Floats, best_psd: Floats, best_skew: Floats, psd: Floats, skew: Floats
) -> None:
    """Psi and S a Polyak step away from the best ones, against the mean of X."""
    n = pairs.shape[0]
    norm = 1e-12
    for i in range(n):
        for j in range(n):
            norm += 0.25 * pairs[i, j] * pairs[i, j]
    length = 0.25 * rise / norm
    for i in range(n):
        for j in range(n):
            skew[i, j] = best_skew[i, j] - length * (pairs[i, j] - pairs[j, i])
            psd[i, j] = best_psd[i, j] - length * (pairs[i, j] + pairs[j, i])
    _project(psd)


@compiled
def climb(
    s: int,
    linear: Floats,
    quadratic: Floats,
    psd: Floats,
    skew: Floats,
    pairs: Floats,
    target: float,
    goal: float,
    steps: int,
    memory: Floats,
    length: float,
    forced: Floats,
    without: Floats,
) -> tuple[float, float, float]:
    """Best bound over some steps on (psd, skew), in place; stops at ``target``.

    Parameters
    ----------
    s : number of removals, 1 <= s <= n
    linear, quadratic : float64 (n,), (n, n), b less the prices, and Q
    pairs : float64 (n, n), running mean of X, in place
    target : bound that settles the node
    goal : value the steps aim at
    memory : float64 (steps,), weight of the newest X in the mean
    length : share of the distance to ``goal`` that a step tries to gain
    forced, without : float64 (n,), raised to the best bounds per channel

    Returns
    -------
    best bound, length, largest trace of Psi on the way
    """
    n = linear.size
    rows, off = np.empty(n), np.empty((n, n))
    members = np.zeros((n, n), dtype=np.int64)
    best, best_psd, best_skew = -INFINITY, psd.copy(), skew.copy()
    failures, largest = 0, 0.0
    for step in range(steps):
        largest = max(largest, np.trace(psd))
        off[:] = quadratic + psd + skew
        _rows(n, s, linear, off, rows, members)
        value = _evaluate(s, rows, members, memory[step], pairs, forced, without)
        if value > best:
            best, failures = value, 0
            length = min(1.1 * length, LONGEST)
            best_psd[:] = psd
            best_skew[:] = skew
        else:
            failures += 1
            if failures == PATIENCE:
                length, failures = 0.66 * length, 0
        if best >= target or step == steps - 1:
            break
        _step(length * (goal - best), pairs, best_psd, best_skew, psd, skew)
    psd[:] = best_psd
    skew[:] = best_skew
    return best, length, largest
