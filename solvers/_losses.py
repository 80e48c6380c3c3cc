r"""Losses of masks straight from the data, each with a bound on its own error.

For kept rows S, with H the damped Gram matrix and its rows scaled to a unit diagonal,
the least loss is :math:`e/2 - \tfrac12 \operatorname{tr}(C_S^\top H_{SS}^{-1} C_S)`. From any
weights W with residual R = C_S - H_SS W it is

.. math:: \tfrac{e}{2} - \tfrac12 \operatorname{tr} W^\top (C_S + R)
          - \tfrac12 \operatorname{tr} R^\top H_{SS}^{-1} R ,

exactly, so that a solution wrong by a relative ``q`` costs only ``q^2``. Applied again to
the last term with residuals of twice the working precision (Ogita, Rump and Oishi 2005,
"Accurate sum and dot product") it gives losses up to condition numbers near 1/eps.

Directions of a submatrix whose eigenvalue cannot be told from zero are taken for absent,
as in the library's own values; what one of them could gain at the smallest eigenvalue that
those values accept is part of the error.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import Term

__all__ = ["MaskLosses"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

UNIT = float(np.finfo(np.float64).eps)
SPLITTER = 2.0**27 + 1.0
SOLID = 4.0
"""Eigenvalues above this, times rows * eps * largest, are solved for; an error of
``eigh`` is a fraction of it."""

ACCURATE = 1e-11
"""Error, relative to the energy, up to which a loss in plain float64 is good enough."""

REFINEMENTS = 25
BATCH_BYTES = 16_000_000


@dataclass(frozen=True, eq=False)
class _Stack:
    """Eigenvectors of submatrices (n, k, k), their data, and what counts as solid."""

    gram: Floats
    cross: Floats
    vectors: Floats
    inverse: Floats
    """Reciprocal solid eigenvalues, 0 elsewhere, (n, k, 1)."""
    weakest: Floats
    """Lower bound on the least solid eigenvalue, (n,)."""
    condition: Floats
    unclear: Bools
    """Directions neither solid nor clearly negative, (n, k, 1)."""

    def solve(self, right: Floats) -> tuple[Floats, Floats]:
        """Weights of the solid directions, and ``V' right``."""
        inner = np.swapaxes(self.vectors, 1, 2) @ right
        return self.vectors @ (inner * self.inverse), inner


class MaskLosses:
    """Least losses of one term, without its box, under many masks.

    Parameters
    ----------
    term : Term
    """

    def __init__(self, term: Term) -> None:
        diagonal = np.diag(term.damped_gram)
        self.alive = np.flatnonzero(diagonal > 0)
        # Powers of two: the scaling itself rounds nothing.
        scale = 2.0 ** -np.round(np.log2(diagonal[self.alive]) / 2)
        self.gram = term.damped_gram[np.ix_(self.alive, self.alive)] * scale[:, None] * scale
        self.cross = term.compressed_cross[self.alive] * scale[:, None]
        compressed = term.n_responses > term.n_rows
        norm = float(np.linalg.norm(term.cross[self.alive] * scale[:, None]))
        self.cross_error = 8 * UNIT * term.n_rows * norm if compressed else 0.0
        self.energy = term.energy

    @property
    def spectrum(self) -> tuple[float, float]:
        """Least and largest eigenvalue of the scaled matrix of all rows; ones without rows."""
        if not self.alive.size:
            return 1.0, 1.0
        values = np.linalg.eigvalsh(self.gram)
        return float(values[0]), float(values[-1])

    def plain(self, kept: Bools, tick: Callable[[], None]) -> tuple[Floats, Floats]:
        """Losses in float64 and their errors, float64 (n,), of row masks bool (n, d)."""
        return self._all(kept, _plain, tick)

    def refined(self, kept: Bools, tick: Callable[[], None]) -> tuple[Floats, Floats]:
        """The same with residuals of twice the precision."""
        return self._all(kept, _refined, tick)

    def _all(
        self,
        kept: Bools,
        method: Callable[[_Stack, float], tuple[Floats, Floats, Floats]],
        tick: Callable[[], None],
    ) -> tuple[Floats, Floats]:
        losses, errors = np.full(len(kept), self.energy / 2), np.zeros(len(kept))
        kept = kept[:, self.alive]
        counts = kept.sum(1)
        for k in np.unique(counts[counts > 0]).tolist():
            same = np.flatnonzero(counts == k)
            size = 8 * 6 * k * (k + self.cross.shape[1])
            for part in np.array_split(same, max(1, same.size * size // BATCH_BYTES)):
                tick()
                rows = np.nonzero(kept[part])[1].reshape(-1, k)
                stack = _stack(self.gram[rows[:, :, None], rows[:, None, :]], self.cross[rows])
                gain, error, size_of_weights = method(stack, self.energy)
                losses[part] -= gain
                off = self.cross_error
                error += size_of_weights * off + off**2 / (2 * stack.weakest)
                errors[part] = 2 * error + 4 * UNIT * (self.energy + np.abs(gain))
        return losses, errors


def _stack(gram: Floats, cross: Floats) -> _Stack:
    k = gram.shape[1]
    values, vectors = np.linalg.eigh(gram)
    noise = SOLID * k * UNIT * values[:, -1:]
    solid = values > noise
    inverse = np.where(solid, 1.0 / np.where(solid, values, 1.0), 0.0)
    largest = inverse.max(1)
    # The error of eigh is taken to be a half of what separates solid from absent.
    weakest = np.where(largest > 0, 1.0 / np.maximum(largest, 1e-300), np.inf) / 2
    return _Stack(
        gram,
        cross,
        vectors,
        inverse[:, :, None],
        weakest,
        np.maximum(values[:, -1] * largest, 1.0),
        (~solid & (values > -noise))[:, :, None],
    )


def _plain(stack: _Stack, energy: float) -> tuple[Floats, Floats, Floats]:
    """Gains (n,), their errors and the norms of the weights."""
    k, m = stack.cross.shape[1:]
    weights, _ = stack.solve(stack.cross)
    residual = stack.cross - stack.gram @ weights
    size = np.abs(stack.gram) @ np.abs(weights) + np.abs(stack.cross)
    off = UNIT * (k + 2) * np.sqrt((size**2).sum((1, 2)))
    gain = 0.5 * (weights * (stack.cross + residual)).sum((1, 2))
    rounding = UNIT * (k + m + 4) * (np.abs(weights) * size).sum((1, 2))
    more, error = _rest(stack, residual, off)
    return gain + more, rounding + error, np.sqrt((weights**2).sum((1, 2)))


def _refined(stack: _Stack, energy: float) -> tuple[Floats, Floats, Floats]:
    k, m = stack.cross.shape[1:]
    right, total = stack.cross, np.zeros_like(stack.cross)
    gain = np.zeros(len(right))
    rounding, off = np.zeros(len(right)), np.zeros(len(right))
    for step in range(REFINEMENTS):
        weights, _ = stack.solve(right)
        residual = _residual(right, stack.gram, weights)
        size = np.abs(stack.gram) @ np.abs(weights) + np.abs(right)
        gain = gain + 0.5 * (_dot(weights, right) + _dot(weights, residual))
        rounding += UNIT * np.abs(gain) + 4 * (k * m * UNIT) ** 2 * (np.abs(weights) * size).sum(
            (1, 2)
        )
        off += UNIT * np.sqrt((residual**2).sum((1, 2)))
        off += (2 * k * UNIT) ** 2 * np.sqrt((size**2).sum((1, 2)))
        total = total + weights
        right = residual
        if step > 0 and np.all(_rest(stack, right, off)[0] <= 1e-17 * energy):
            break
    more, error = _rest(stack, right, off)
    norm = np.sqrt((total**2).sum((1, 2)))
    # ``off`` perturbs the data of every later step: what the weights make of that.
    return gain + more, rounding + error + norm * off, norm


def _rest(stack: _Stack, residual: Floats, off: Floats) -> tuple[Floats, Floats]:
    """Gain of the last residual, and the error that is left with it."""
    inner = np.swapaxes(stack.vectors, 1, 2) @ residual
    more = 0.5 * (inner**2 * stack.inverse).sum((1, 2))
    k = residual.shape[1]
    error = more * np.minimum(1.0, 4 * k * UNIT * stack.condition)
    error = error + np.sqrt(2 * more / stack.weakest) * off + off**2 / (2 * stack.weakest)
    absent = np.sqrt((inner**2 * stack.unclear).sum((1, 2)))
    # Nothing is unclear in most stacks: then the noise below has no direction to act in.
    noise = np.where(stack.unclear.any((1, 2)), off, 0.0)
    # Diagonals are at least 1/2: what the values of masks count as present is above k eps / 4,
    # however their rows are scaled.
    return more, error + (absent + noise) ** 2 / (0.5 * k * UNIT)


def _residual(right: Floats, gram: Floats, weights: Floats) -> Floats:
    """``right - gram @ weights`` as if in twice the precision, float64 (n, k, m)."""
    total, tail = right, np.zeros_like(right)
    for i in range(gram.shape[2]):
        product, low = _two_product(-gram[:, :, i, None], weights[:, None, i, :])
        total, carry = _two_sum(total, product)
        tail = tail + (carry + low)
    return total + tail


def _dot(left: Floats, right: Floats) -> Floats:
    """Sums of products over the last two axes, as if in twice the precision, float64 (n,)."""
    product, tail = _two_product(left, right)
    product, rest = product.reshape(len(left), -1), tail.reshape(len(left), -1).sum(1)
    total = np.zeros(len(left))
    for i in range(product.shape[1]):
        total, carry = _two_sum(total, product[:, i])
        rest = rest + carry
    result: Floats = total + rest
    return result


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Sum and its rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Product and its rounding error (Dekker)."""
    product = a * b
    a_high, b_high = SPLITTER * a, SPLITTER * b
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    left: Floats = ((product - a_high * b_high) - a_low * b_high) - a_high * b_low
    return product, a_low * b_low - left
