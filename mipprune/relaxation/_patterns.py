r"""Blocks of channels and the patterns of removals inside them.

A block of s channels is removed in one of :math:`2^s - 1` non-empty patterns. With one
direction :math:`Z_a` per pattern a (rows of its channels only) and u the indicator of the
patterns that a mask shows, at most one per block,

.. math:: f \ge f_{all} + b^\top u - \tfrac12 u^\top Q u, \quad
    b_a = \operatorname{tr}(B_a^\top Z_a),\; Q_{ac} = \operatorname{tr}(Z_a^\top P_{ac} Z_c)

because :math:`Z = \sum_a u_a Z_a` is a direction of the removed rows. Rows of the
Gilmore-Lawler kind bound the right side: a chosen pattern a of weight :math:`|a|` picks one
pattern (or none) from each other block so that the weights add up to the removals,

.. math:: \min_{u} \sum_a u_a \Big[ b_a - \tfrac12 Q_{aa} - \tfrac12
    \max \sum_{c} (Q_{ac} + \Psi_{ac} + S_{ac}) \Big],

both by dynamic programming over the blocks. Blocks of one channel give the pairwise bound;
one block of all channels would be exact. This is a hierarchy of Sherali and Adams (1990)
restricted to blocks.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Patterns", "RowProblems", "blockwise", "cluster"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Patterns:
    """Non-empty subsets of each block, by size and then lexicographically.

    Attributes
    ----------
    labels : int64 (n,)
        Block of each channel, numbered from 0 without gaps.
    """

    labels: Integers

    @cached_property
    def items(self) -> tuple[tuple[int, ...], ...]:
        """Channels of every pattern."""
        found: list[tuple[int, ...]] = []
        for label in range(int(self.labels.max(initial=-1)) + 1):
            own = np.flatnonzero(self.labels == label).tolist()
            for size in range(1, len(own) + 1):
                found.extend(combinations(own, size))
        return tuple(found)

    @cached_property
    def weight(self) -> Integers:
        """Channels per pattern, int64 (q,)."""
        return np.array([len(item) for item in self.items], dtype=np.int64)

    @cached_property
    def block(self) -> Integers:
        """Block of each pattern, int64 (q,)."""
        return np.array([self.labels[item[0]] for item in self.items], dtype=np.int64)

    @cached_property
    def member(self) -> Floats:
        """1 where a pattern holds a channel, float64 (q, n)."""
        member = np.zeros((len(self.items), self.labels.size))
        for index, item in enumerate(self.items):
            member[index, list(item)] = 1.0
        return member

    def rows(self, channel: Integers) -> tuple[Integers, Integers]:
        """Rows of all patterns one after the other, and the pattern of each."""
        rows = [np.flatnonzero(np.isin(channel, item)) for item in self.items]
        pattern = np.repeat(np.arange(len(rows)), [r.size for r in rows])
        return np.concatenate([np.zeros(0, dtype=np.int64), *rows]).astype(np.int64), pattern

    @cached_property
    def segments(self) -> tuple[Integers, Integers, Integers]:
        """First pattern, weight and block of each run of equal weights in a block."""
        start = np.flatnonzero(
            np.append(True, (np.diff(self.weight) != 0) | (np.diff(self.block) != 0))
        )
        return start, self.weight[start], self.block[start]


def cluster(strength: Floats, size: int) -> Integers:
    """Blocks of at most ``size`` channels that interact most, greedily; int64 (n,) labels.

    The strongest pair left starts a block; the channel with the largest sum of
    strengths to it joins until it is full.
    """
    labels = np.full(len(strength), -1, dtype=np.int64)
    left = list(range(len(strength)))
    while left:
        inner = strength[np.ix_(left, left)].copy()
        np.fill_diagonal(inner, -np.inf)
        start, _ = np.unravel_index(int(np.argmax(inner)), inner.shape)
        block = [int(start)]
        while len(block) < min(size, len(left)):
            sums = inner[:, block].sum(1)
            sums[block] = -np.inf
            block.append(int(np.argmax(sums)))
        chosen = [left[position] for position in block]
        labels[chosen] = labels.max() + 1
        left = [j for j in left if j not in chosen]
    return labels


class RowProblems:
    """Dynamic programs over the blocks: the rows' maxima and the cheapest rows."""

    def __init__(self, patterns: Patterns, most: int) -> None:
        self.patterns, self.most = patterns, most
        self.start, self.size, self.of = patterns.segments
        self.n_blocks = int(self.of.max(initial=-1)) + 1

    def closed(self, gains: Floats) -> Floats:
        """``gains`` with each row's own block forbidden."""
        own = self.patterns.block[:, None] == self.patterns.block
        return np.where(own, -np.inf, gains)

    def inner(self, gains: Floats) -> Floats:
        """Largest sums in each row of ``gains`` (q, q) per total weight; (blocks + 1, q, most + 1).

        Layer k uses the blocks before k; ``gains`` must be :meth:`closed`.
        """
        best = np.maximum.reduceat(gains, self.start, axis=1)
        table = np.full((self.n_blocks + 1, len(gains), self.most + 1), -np.inf)
        table[0, :, 0] = 0.0
        self._layers(table, best)
        return table

    def outer(self, costs: Floats) -> Floats:
        """Largest sum of minus ``costs`` (q,) per total weight; (blocks + 1, 1, most + 1)."""
        best = np.maximum.reduceat(-costs, self.start)[None]
        table = np.full((self.n_blocks + 1, 1, self.most + 1), -np.inf)
        table[0, :, 0] = 0.0
        self._layers(table, best)
        return table

    def _layers(self, table: Floats, best: Floats) -> None:
        for segment, (weight, block) in enumerate(zip(self.size, self.of, strict=True)):
            here = table[block + 1]
            if segment == 0 or self.of[segment - 1] != block:
                here[:] = table[block]
            if weight <= self.most:
                tail = here[:, weight:]
                shorter = table[block][:, : self.most + 1 - weight]
                np.maximum(tail, shorter + best[:, segment, None], out=tail)

    def picks(self, table: Floats, gains: Floats, rows: Integers, left: Integers) -> Floats:
        """Patterns on a best path of each of ``rows``, 1.0 where picked; (len(rows), q)."""
        chosen = np.zeros((len(rows), gains.shape[1]))
        index = np.arange(len(rows))
        for block in range(self.n_blocks - 1, -1, -1):
            columns = np.flatnonzero(self.patterns.block == block)
            weights = self.patterns.weight[columns]
            before = left[:, None] - weights
            options = np.where(
                before >= 0,
                table[block][rows[:, None], np.maximum(before, 0)] + gains[np.ix_(rows, columns)],
                -np.inf,
            )
            pick = np.argmax(options, axis=1)
            taken = options[index, pick] > table[block][rows, left]
            chosen[index[taken], columns[pick[taken]]] = 1.0
            left = left - np.where(taken, weights[pick], 0)
        return chosen


def blockwise(
    linear: Floats, quadratic: Floats, skew: Floats, patterns: Patterns, counts: Integers
) -> Floats:
    """Lower bound of ``linear'u - u'quadratic u / 2`` over patterns of r channels, r in counts."""
    if not patterns.items:
        return np.zeros(counts.size)
    problems = RowProblems(patterns, int(counts.max()))
    gains = problems.inner(problems.closed(quadratic + (skew - skew.T) / 2))[-1]
    own = linear - np.diag(quadratic) / 2
    bounds = np.zeros(counts.size)
    for position, removals in enumerate(counts):
        left = removals - patterns.weight
        inside = np.take_along_axis(gains, np.maximum(left, 0)[:, None], axis=1)[:, 0]
        costs = np.where((left >= 0) & np.isfinite(inside), own - inside / 2, np.inf)
        bounds[position] = -problems.outer(costs)[-1, 0, removals]
    return bounds
