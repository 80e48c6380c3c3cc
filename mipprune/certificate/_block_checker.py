"""Bounds from blocks of channels: one direction per pattern of removals in a block (numpy only)."""

from itertools import combinations
from typing import Any

import numpy as np

from mipprune.certificate._checker import EPS, Arrays, Problem, require

__all__ = ["block_bounds"]


def block_bounds(
    problem: Problem, cert: Arrays, i: int, undecided: Any, terms: Any, tails: Any, counts: Any
) -> Any:
    """What member i proves about the removal cost, prices and limits, per number of removals."""
    items = _patterns(cert[f"blocks_{i}"], undecided)
    member = np.array([np.isin(np.arange(problem.p), item) for item in items]) * 1.0
    price, factor, skew = (cert[f"{name}_{i}"] for name in ("multipliers", "factor", "skew"))
    require(
        len(factor) == len(items) and skew.shape == (len(items),) * 2, "shapes of a block bound"
    )
    linear = member @ (-problem.prices - price @ problem.rows)
    q, lost = factor @ factor.T, 0.0
    for t, (p, b, null, of, _, _) in enumerate(terms):
        z, rows = cert[f"direction_{i}_{t}"], [np.flatnonzero(np.isin(of, a)) for a in items]
        which, every = (
            np.repeat(np.arange(len(items)), [len(r) for r in rows]),
            np.concatenate(rows),
        )
        require(z.shape == (len(every), b.shape[1]), "a direction has the wrong shape")
        indicator = (np.arange(len(items))[:, None] == which) * 1.0
        own = indicator @ (p[np.ix_(every, every)] * (z @ z.T)) @ indicator.T
        linear, q = linear + indicator @ (b[every] * z).sum(1), q + own
        most, (eta, tail) = np.sqrt(np.abs(np.diag(own))).sum(), tails[t]
        lost += eta * most**2 + 2 * tail * (most + tail)
        parts = [null[r].T @ z[which == a] for a, r in enumerate(rows)]
        flaw = max((float(np.linalg.norm(part)) for part in parts), default=0.0)
        require(flaw <= 1e-9 * (1 + np.linalg.norm(z)), "direction outside the range")
    return _programs(linear, q, skew, items, cert[f"blocks_{i}"], counts) - lost


def _patterns(labels: Any, undecided: Any) -> list[tuple[int, ...]]:
    """Non-empty subsets of each block by size, then in lexicographic order."""
    require(labels.shape == undecided.shape, "a block per channel")
    require(np.array_equal(labels >= 0, undecided), "blocks are of the undecided channels")
    items: list[tuple[int, ...]] = []
    for label in np.unique(labels[undecided]):
        own = np.flatnonzero(labels == label).tolist()
        require(len(own) <= 8, "a block of more than eight channels")
        items += [a for size in range(1, len(own) + 1) for a in combinations(own, size)]
    return items


def _programs(linear: Any, q: Any, skew: Any, items: Any, labels: Any, counts: Any) -> Any:
    """Least linear'u - u'qu/2 over one pattern a block, r channels in all, r in counts."""
    n, most = len(items), int(counts.max(initial=0))
    weight, block = np.array([len(a) for a in items]), np.array([labels[a[0]] for a in items])
    gains = np.where(block[:, None] == block, -np.inf, q + (skew - skew.T) / 2)
    best = _knapsack(gains, weight, block, most)
    bounds = np.zeros(len(counts))
    for position, removals in enumerate(counts):
        left = removals - weight
        inside = np.where(left >= 0, best[np.arange(n), np.maximum(left, 0)], -np.inf)
        costs = linear - np.diag(q) / 2 - inside / 2
        bounds[position] = -_knapsack(-costs[None], weight, block, most)[0, removals]
    size = np.abs(linear).sum() + np.abs(q).sum() + np.abs(skew).sum()
    return bounds - 4 * EPS * (n + 2) * size


def _knapsack(gains: Any, weight: Any, block: Any, most: int) -> Any:
    """Per row the largest sum of gains of at most one item a block, per total weight."""
    table = np.full((len(gains), most + 1), -np.inf)
    table[:, 0] = 0.0
    for label in np.unique(block):
        before = table.copy()
        for j in np.flatnonzero((block == label) & (weight <= most)):
            longer = before[:, : most + 1 - weight[j]] + gains[:, j : j + 1]
            table[:, weight[j] :] = np.maximum(table[:, weight[j] :], longer)
    return table
