r"""Exact cost of flipping one or two channels, kept up to date by pivots.

For the squared loss all terms are held as a *sweep tableau*. With S the kept
rows, R the others, G the damped Gram matrix and P = G_SS^-1:

.. math:: T = \begin{pmatrix} -P & P G_{SR} \\ G_{RS} P & G_{RR} - G_{RS} P G_{SR} \end{pmatrix},
          \qquad R = \begin{pmatrix} P C_S \\ C_R - G_{RS} P C_S \end{pmatrix}.

Flipping any set F of channels, kept or not, changes the loss by exactly

.. math:: -\tfrac12 \operatorname{tr}(R_F^\top T_{FF}^{-1} R_F)

(removal costs where F is kept, gains where it is not), and pivoting on F keeps
the tableau current. Channels are padded to a common number of rows by unit
pivots that touch nothing. For variant ``mask`` the objective is a binary
quadratic form and the same costs are differences of it.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dgemm

from mipprune.problem import ChannelSelection, Term, solve_psd

__all__ = ["Engine", "LossEngine", "QuadraticEngine", "Tableau", "engine_for"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

REFRESH = 64
"""Pivots after which a tableau is rebuilt from the data."""

JITTER = 1e-10
"""Relative shift that keeps pivots regular where the Gram matrix is singular.

Only the ranking of moves sees it: values are always recomputed from the mask.
"""


class Engine(Protocol):
    """Objective changes around a current mask."""

    mask: Bools

    def reset(self, mask: Bools) -> None:
        """Move to ``mask``."""

    def flip(self, channels: Indices) -> None:
        """Flip channels of the mask."""

    def flip_costs(self) -> Floats:
        """Change of the objective for each single flip, float64 (p,)."""

    def pair_costs(self, first: Indices, second: Indices) -> Floats:
        """Change for flipping ``first[a]`` and ``second[b]``, float64 (a, b).

        Entries where both are the same channel are meaningless.
        """


class Tableau:
    """Sweep tableau of one term; usable after ``reset``.

    ``gram`` and ``cross`` are its data, every channel padded to ``g`` rows.
    """

    def __init__(self, term: Term) -> None:
        p, g = term.n_channels, max(int(term.group_sizes.max(initial=0)), 1)
        self.p, self.g = p, g
        place = np.concatenate([j * g + np.arange(n) for j, n in enumerate(term.group_sizes)])
        place = place.astype(np.intp)
        cross = term.compressed_cross
        self.gram = np.eye(p * g)
        self.gram[np.ix_(place, place)] = term.damped_gram
        if not _is_regular(term.damped_gram):
            scale = float(np.diag(term.gram).mean())
            self.gram[place, place] += JITTER * scale if scale > 0 else 1.0
        self.cross = np.zeros((p * g, cross.shape[1]))
        self.cross[place] = cross

    def reset(self, mask: Bools) -> None:
        kept = np.repeat(mask, self.g)
        self.table = self.gram.copy()
        self.right = self.cross.copy()
        self.rest = kept
        rows, others = np.flatnonzero(kept), np.flatnonzero(~kept)
        if not rows.size:
            return
        coupling = self.gram[np.ix_(rows, others)]
        solved = solve_psd(
            self.gram[np.ix_(rows, rows)],
            np.hstack([np.eye(rows.size), coupling, self.cross[rows]]),
        )
        n = rows.size
        ratio = solved[:, n : n + others.size]
        self.table[np.ix_(rows, rows)] = -(solved[:, :n] + solved[:, :n].T) / 2
        self.table[np.ix_(rows, others)] = ratio
        self.table[np.ix_(others, rows)] = ratio.T
        self.table[np.ix_(others, others)] -= coupling.T @ ratio
        self.right[rows] = solved[:, n + others.size :]
        self.right[others] -= coupling.T @ self.right[rows]

    def flip(self, channels: Indices, mask: Bools) -> None:
        rows = (channels[:, None] * self.g + np.arange(self.g)).ravel()
        sign = np.repeat(np.where(mask[channels], -1.0, 1.0), self.g)[:, None]
        inverse = np.linalg.inv(self.table[np.ix_(rows, rows)])
        inverse = (inverse + inverse.T) / 2
        pivot = self.table[rows]
        ratio = inverse @ pivot
        new_right = inverse @ self.right[rows]
        _subtract_product(self.right, pivot, new_right)
        _subtract_product(self.table, pivot, ratio)
        self.table[rows] = sign * ratio
        self.table[:, rows] = self.table[rows].T
        corner = -sign * inverse * sign.T
        self.table[np.ix_(rows, rows)] = corner
        self.right[rows] = sign * new_right

    def blocks(self, first: Indices, second: Indices) -> Floats:
        """Blocks of the tableau, float64 (a, b, g, g)."""
        four = self.table.reshape(self.p, self.g, self.p, self.g)
        result: Floats = four[first[:, None], :, second[None, :], :]
        return result

    def products(self, first: Indices, second: Indices) -> Floats:
        """Blocks of ``right right'``, float64 (a, b, g, g)."""
        three = self.right.reshape(self.p, self.g, -1)
        left = three[first].reshape(first.size * self.g, -1)
        full = left @ three[second].reshape(second.size * self.g, -1).T
        return full.reshape(first.size, self.g, second.size, self.g).transpose(0, 2, 1, 3)

    def diagonal(self) -> tuple[Floats, Floats]:
        """Diagonal blocks of table and of products, float64 (p, g, g) each."""
        index = np.arange(self.p)
        four = self.table.reshape(self.p, self.g, self.p, self.g)
        three = self.right.reshape(self.p, self.g, -1)
        return four[index, :, index, :], three @ three.transpose(0, 2, 1)

    def flip_costs(self) -> Floats:
        table, product = self.diagonal()
        return -0.5 * _traces(table, product)

    def pair_costs(self, first: Indices, second: Indices) -> Floats:
        table, product = self.diagonal()
        inverse = np.linalg.inv(table[first])[:, None]
        cross = self.blocks(first, second).swapaxes(2, 3)
        both = self.products(first, second)
        ratio = cross @ inverse
        reduced = table[second][None] - ratio @ cross.swapaxes(2, 3)
        moved = ratio @ both
        new = product[second][None] - moved - moved.swapaxes(2, 3)
        new = new + ratio @ product[first][:, None] @ ratio.swapaxes(2, 3)
        reduced[first[:, None] == second[None, :]] = np.eye(self.g)
        single = -0.5 * _traces(table[first], product[first])
        return single[:, None] - 0.5 * _traces(reduced, new)


def _subtract_product(matrix: Floats, left: Floats, right: Floats) -> None:
    """``matrix -= left' right`` in place, in one sweep over its memory."""
    # BLAS works on columns: a C-ordered array is its transpose there.
    result = dgemm(-1.0, right.T, left.T, beta=1.0, c=matrix.T, trans_b=1, overwrite_c=1)
    if not np.shares_memory(result, matrix):
        matrix[...] = result.T


def _is_regular(matrix: Floats) -> bool:
    """Whether Cholesky pivots stay well away from zero."""
    if not matrix.size:
        return True
    try:
        pivots = np.diag(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        return False
    return bool(pivots.min() > 1e-6 * pivots.max())


def _traces(table: Floats, product: Floats) -> Floats:
    """``tr(table^-1 product)`` for stacks of small matrices."""
    if table.shape[-1] == 1:
        result: Floats = product[..., 0, 0] / table[..., 0, 0]
        return result
    traces: Floats = np.einsum("...ii->...", np.linalg.solve(table, product))
    return traces


class LossEngine:
    """Variants refit and scale: squared loss through sweep tableaus, plus prices.

    A box on the weights is not seen; the costs are then approximate.
    """

    def __init__(self, problem: ChannelSelection) -> None:
        canonical = problem.canonical()
        self.prices = canonical.prices
        self.tables = [Tableau(term) for term in canonical.terms]
        self.reset(np.zeros(problem.n_channels, dtype=bool))

    def reset(self, mask: Bools) -> None:
        """Rebuild every tableau at ``mask``."""
        self.mask = mask.copy()
        self._pivots = 0
        for table in self.tables:
            table.reset(self.mask)

    def flip(self, channels: Indices) -> None:
        """Pivot on the channels, or rebuild after many pivots."""
        self._pivots += channels.size
        if self._pivots > REFRESH:
            mask = self.mask.copy()
            mask[channels] ^= True
            self.reset(mask)
            return
        for table in self.tables:
            table.flip(channels, self.mask)
        self.mask[channels] ^= True

    def flip_costs(self) -> Floats:
        """Removal costs of kept channels, minus gains of the others; prices included."""
        loss = sum((t.flip_costs() for t in self.tables), np.zeros(self.mask.size))
        return loss + np.where(self.mask, -self.prices, self.prices)

    def pair_costs(self, first: Indices, second: Indices) -> Floats:
        """Exact cost of flipping two channels together."""
        zero = np.zeros((first.size, second.size))
        loss = sum((t.pair_costs(first, second) for t in self.tables), zero)
        price = np.where(self.mask, -self.prices, self.prices)
        return loss + price[first][:, None] + price[second][None, :]


class QuadraticEngine:
    """Variant mask: differences of ``vector'y + y'matrix y / 2``."""

    def __init__(self, problem: ChannelSelection) -> None:
        self.matrix, self.vector, _ = problem.binary_quadratic()
        self.reset(np.zeros(problem.n_channels, dtype=bool))

    def reset(self, mask: Bools) -> None:
        """Move to ``mask``."""
        self.mask = mask.copy()

    def flip(self, channels: Indices) -> None:
        """Flip channels of the mask."""
        self.mask[channels] ^= True

    def flip_costs(self) -> Floats:
        """Signed slope of the quadratic at the mask."""
        step = np.where(self.mask, -1.0, 1.0)
        return step * (self.vector + self.matrix @ self.mask)

    def pair_costs(self, first: Indices, second: Indices) -> Floats:
        """Sum of two flips and their interaction."""
        step, single = np.where(self.mask, -1.0, 1.0), self.flip_costs()
        both = step[first][:, None] * self.matrix[np.ix_(first, second)] * step[second][None, :]
        return single[first][:, None] + single[second][None, :] + both


def engine_for(problem: ChannelSelection) -> Engine:
    """The engine that fits the variant."""
    return QuadraticEngine(problem) if problem.variant == "mask" else LossEngine(problem)
