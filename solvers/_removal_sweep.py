r"""Exact removal costs along a sweep that only removes channels.

With P the inverse of the damped Gram matrix of the kept rows and B = P C, removing
channel j costs :math:`\tfrac12 \operatorname{tr}(B_j^\top P_{jj}^{-1} B_j)`, and with
:math:`P_{jj}^{-1} = L L^\top` and :math:`V = L^\top P_j` afterwards

.. math:: P \leftarrow P - V^\top V, \qquad B \leftarrow B - V^\top L^\top B_j .

(Hassibi & Stork 1993.) Costs need only the diagonal blocks of P and of B B', which are
updated at once; P and B themselves are left as they are for ``DELAY`` rows, which
then go in as one product, and rows that went are dropped from them: a sweep
costs a few passes over P instead of one per channel.
"""

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection, solve_psd
from mipprune.solvers._engines import Tableau

__all__ = ["RemovalSweep"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

DELAY = 64
"""Removed rows that are held back before they go into P and B."""

RENEWAL = 0.75
"""P is computed from the data again when this share of its rows is left."""


class RemovalSweep:
    """Removal costs of the channels of ``mask``, which can only shrink.

    Squared loss (variants refit and scale) and prices; a box on the weights is not seen.
    """

    def __init__(self, problem: ChannelSelection, mask: Bools) -> None:
        canonical = problem.canonical()
        self.prices = canonical.prices
        self.mask = mask.copy()
        self.terms = [_Shrinking(Tableau(term), mask) for term in canonical.terms]

    def costs(self) -> Floats:
        """Cost of removing each kept channel, float64 (p,), inf for the others."""
        total = np.where(self.mask, -self.prices, np.inf)
        for term in self.terms:
            total[term.alive] += term.costs()
        return total

    def remove(self, channels: Indices) -> None:
        """Remove kept channels."""
        self.mask[channels] = False
        for term in self.terms:
            term.remove(channels)


class _Shrinking:
    """P and B of one term on the kept channels, each of ``g`` rows."""

    def __init__(self, data: Tableau, mask: Bools) -> None:
        self.data, self.g = data, data.g
        self.alive = np.flatnonzero(mask)
        self.renew()

    def renew(self) -> None:
        """P, B and the blocks from the data."""
        rows = (self.alive[:, None] * self.g + np.arange(self.g)).ravel()
        inverse = solve_psd(self.data.gram[np.ix_(rows, rows)], np.eye(rows.size))
        self.inverse = (inverse + inverse.T) / 2
        self.weights = self.inverse @ self.data.cross[rows]
        self.rows = np.arange(rows.size).reshape(-1, self.g)
        self.held = np.zeros((0, rows.size)), np.zeros((0, self.weights.shape[1]))
        n, g = self.rows.shape
        four = self.inverse.reshape(n, g, n, g)
        self.blocks = four[np.arange(n), :, np.arange(n), :]
        three = self.weights.reshape(n, g, self.weights.shape[1])
        self.products = three @ three.transpose(0, 2, 1)
        self.renewed = n

    def costs(self) -> Floats:
        """Per kept channel."""
        if self.g == 1:
            result: Floats = 0.5 * self.products[:, 0, 0] / self.blocks[:, 0, 0]
            return result
        solved = np.linalg.solve(self.blocks, self.products)
        return np.asarray(0.5 * np.einsum("jii->j", solved))

    def remove(self, channels: Indices) -> None:
        """Remove kept channels together."""
        gone = np.isin(self.alive, channels)
        rows = self.rows[gone].ravel()
        early, moved = self.held
        pivot = self.inverse[rows] - early[:, rows].T @ early
        weights = self.weights[rows] - early[:, rows].T @ moved
        self.alive, self.rows = self.alive[~gone], self.rows[~gone]
        try:
            square = np.linalg.inv(pivot[:, rows])
            half = np.linalg.cholesky((square + square.T) / 2).T
        except np.linalg.LinAlgError:  # rounding has eaten the block: start from the data
            self.renew()
            return
        change, shift = half @ pivot, half @ weights
        self.update_blocks(change, shift, ~gone)
        self.held = np.vstack([early, change]), np.vstack([moved, shift])
        if self.alive.size <= RENEWAL * self.renewed:
            self.renew()
        elif len(self.held[0]) >= DELAY:
            self.settle()

    def update_blocks(self, change: Floats, shift: Floats, stay: Bools) -> None:
        """Diagonal blocks of P and of B B' after one more change, for channels that stay."""
        early, moved = self.held
        rows = self.rows.ravel()
        # B shift' before the change; the columns of B are many, those of shift few.
        across = (self.weights @ shift.T)[rows] - early[:, rows].T @ (moved @ shift.T)
        step = change[:, rows].reshape(len(change), -1, self.g).transpose(1, 2, 0)
        across = across.reshape(step.shape)
        self.blocks = self.blocks[stay] - step @ step.transpose(0, 2, 1)
        mixed = step @ across.transpose(0, 2, 1)
        inner = step @ (shift @ shift.T) @ step.transpose(0, 2, 1)
        self.products = self.products[stay] - mixed - mixed.transpose(0, 2, 1) + inner

    def settle(self) -> None:
        """Put the held changes into P and B, and drop the rows that went."""
        early, moved = self.held
        rows = self.rows.ravel()
        early = early[:, rows]
        self.inverse = self.inverse[np.ix_(rows, rows)] - early.T @ early
        self.weights = self.weights[rows] - early.T @ moved
        self.rows = np.arange(rows.size).reshape(-1, self.g)
        self.held = early[:0], moved[:0]
