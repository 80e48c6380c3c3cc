"""What removing channels costs, starting from every channel kept.

Everything that bounds the program from the removing side starts here: the
branch and bound, the pairwise relaxations and the certificates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dpotrf, dpotri

from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, Term, require_problem

__all__ = ["RemovalForm", "TermRemoval", "removal_form"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

EPSILON = float(np.finfo(np.float64).eps)
MAX_RESIDUAL = 1e-7
"""Largest ``||I - H P||`` at which the inverse is trusted; above it the range space is used."""
NULL_TOLERANCE = 1e-12
"""Part of a null vector inside a block that counts as zero (null vectors have norm one)."""


@dataclass(frozen=True, eq=False)
class TermRemoval:
    r"""Removal side of one term.

    With :math:`H = G + \operatorname{blkdiag}(\rho_j I)`, removing the rows T from
    all rows costs

    .. math:: g(T) = \max_Z \operatorname{tr}(B_T^\top Z) - \tfrac12
        \operatorname{tr}(Z^\top P_{TT} Z), \qquad P = H^{-1},\; B = P C,

    and where H is singular, with N an orthonormal basis of its null space and
    P its pseudo-inverse, the same maximum over the Z with :math:`N_T^\top Z = 0`
    (the limit of a vanishing ridge).

    Attributes
    ----------
    inverse : float64 (d, d)
        P, symmetric.
    coefficients : float64 (d, q)
        B after an orthogonal change of responses that leaves ``C C'`` as it is;
        q = min(m, d).
    null_space : float64 (d, k)
        N; k = 0 where H is well conditioned.
    offsets : int64 (p + 1,)
        First row of each channel and the end.
    value_all : float
        Loss of the term with every row kept.
    residual : float
        Error of the inverse, ``||I - H P||`` (Frobenius, rounding included); in the
        singular case the same on the range of H. P is the exact inverse of a
        matrix between ``(1 - 2 eta) H`` and ``(1 + 2 eta) H``, eta = residual.
    """

    inverse: Floats
    coefficients: Floats
    null_space: Floats
    offsets: NDArray[np.int64]
    value_all: float
    residual: float

    @property
    def n_channels(self) -> int:
        """Number of channels p."""
        return int(self.offsets.size - 1)

    def block(self, channel: int) -> slice:
        """Rows of a channel."""
        return slice(int(self.offsets[channel]), int(self.offsets[channel + 1]))

    def cost(self, rows: NDArray[np.int64]) -> float:
        """``g(T)`` of the given rows."""
        if not rows.size:
            return 0.0
        coefficients, inverse = self.coefficients[rows], self.inverse[np.ix_(rows, rows)]
        basis = self._admissible(rows)
        if basis is not None:
            coefficients, inverse = basis.T @ coefficients, basis.T @ inverse @ basis
        return 0.5 * float(np.vdot(coefficients, _solve_definite(inverse, coefficients)))

    @cached_property
    def single_directions(self) -> Floats:
        """``Z_j``, the maximiser of each channel's own cost, float64 (d, q)."""
        directions = np.zeros_like(self.coefficients)
        for j in range(self.n_channels):
            rows = np.arange(self.offsets[j], self.offsets[j + 1])
            coefficients, inverse = self.coefficients[rows], self.inverse[np.ix_(rows, rows)]
            basis = self._admissible(rows)
            if basis is None:
                directions[rows] = _solve_definite(inverse, coefficients)
            else:
                inner = _solve_definite(basis.T @ inverse @ basis, basis.T @ coefficients)
                directions[rows] = basis @ inner
        return directions

    def admissible_directions(self, directions: Floats) -> Floats:
        """``directions`` with each block projected so that ``N_j' Z_j = 0``.

        Every bound built on a Z needs this where ``null_space`` has columns;
        elsewhere it returns its argument.
        """
        if not self.null_space.shape[1]:
            return directions
        projected = np.zeros_like(directions)
        for j in range(self.n_channels):
            rows = np.arange(self.offsets[j], self.offsets[j + 1])
            basis = self._admissible(rows)
            projected[rows] = (
                directions[rows] if basis is None else basis @ (basis.T @ directions[rows])
            )
        return projected

    def _admissible(self, rows: NDArray[np.int64]) -> Floats | None:
        """Orthonormal basis of ``{z : N_T' z = 0}``; None where that is everything."""
        if not self.null_space.shape[1]:
            return None
        vectors, values, _ = np.linalg.svd(self.null_space[rows], full_matrices=True)
        rank = int(np.sum(values > NULL_TOLERANCE))
        return None if rank == 0 else vectors[:, rank:]


@dataclass(frozen=True, eq=False)
class RemovalForm:
    """Removal side of a whole problem; see :func:`removal_form`.

    Attributes
    ----------
    terms : tuple of TermRemoval
    n_channels : int
    value_all : float
        Sum of the terms' losses with every channel kept, prices apart.
    margin : float
        Subtract it from any bound computed from this form in float64: it covers
        the error of the inverses (``2 eta e / 2`` per term, see
        :attr:`TermRemoval.residual`) and the rounding of the sums.
    """

    terms: tuple[TermRemoval, ...]
    n_channels: int
    value_all: float
    margin: float

    @property
    def singular(self) -> bool:
        """True where some term needs the range space."""
        return any(term.null_space.shape[1] > 0 for term in self.terms)

    @cached_property
    def single_costs(self) -> Floats:
        """``delta_j``, the cost of removing one channel from all, float64 (p,)."""
        total = np.zeros(self.n_channels)
        for term in self.terms:
            product = (term.coefficients * term.single_directions).sum(1)
            total += (
                0.5
                * np.add.reduceat(np.append(product, 0.0), term.offsets[:-1])
                * (np.diff(term.offsets) > 0)
            )
        return total

    def removal_cost(self, removed: ArrayLike) -> float:
        """``g(T)``: what the channels set in ``removed``, bool (p,), cost together."""
        mask = np.asarray(removed)
        if mask.shape != (self.n_channels,) or mask.dtype != np.bool_:
            raise InputError(
                f"removed: expected bool of shape ({self.n_channels},), got {mask.dtype} "
                f"{mask.shape}"
            )
        total = 0.0
        for term in self.terms:
            total += term.cost(np.flatnonzero(np.repeat(mask, np.diff(term.offsets))))
        return total

    def single_directions(self, scale: float = 1.0) -> tuple[Floats, ...]:
        """``Z_j = scale * P_jj^-1 B_j`` per term, a good start for :meth:`pairwise`."""
        return tuple(scale * term.single_directions for term in self.terms)

    def pairwise(self, directions: Sequence[Floats]) -> tuple[Floats, Floats]:
        r"""Pairwise minorant of the removal cost given by any directions Z.

        .. math:: g(T) \ge b^\top x - \tfrac12 x^\top Q x, \quad
            b_j = \operatorname{tr}(B_j^\top Z_j),\;
            Q_{ij} = \operatorname{tr}(Z_i^\top P_{ij} Z_j)

        with x the indicator of T; directions of singular terms are projected first
        (:meth:`TermRemoval.admissible_directions`).

        Parameters
        ----------
        directions : one float64 (d, q) per term

        Returns
        -------
        b : float64 (p,)
        Q : float64 (p, p), symmetric positive semidefinite
        """
        if len(directions) != len(self.terms):
            raise InputError(f"directions: expected {len(self.terms)}, got {len(directions)}")
        linear = np.zeros(self.n_channels)
        quadratic = np.zeros((self.n_channels, self.n_channels))
        for term, given in zip(self.terms, directions, strict=True):
            if given.shape != term.coefficients.shape:
                raise InputError(
                    f"directions: expected shape {term.coefficients.shape}, got {given.shape}"
                )
            z = term.admissible_directions(given)
            member = np.repeat(np.eye(self.n_channels), np.diff(term.offsets), axis=1)
            linear += member @ (term.coefficients * z).sum(1)
            quadratic += member @ (term.inverse * (z @ z.T)) @ member.T
        return linear, (quadratic + quadratic.T) / 2


def removal_form(problem: ChannelSelection) -> RemovalForm:
    """Removal side of a problem of variant ``refit`` or ``scale``.

    The box is not part of it: with a box every cost is a lower bound of the
    true one.

    Raises
    ------
    InputError
        Variant ``mask``: its error is not monotone, removal has no cost of this form.
    """
    canonical = require_problem(problem).canonical()
    if canonical.variant != "refit":
        raise InputError(
            f"variant '{problem.variant}' has no removal costs; use the bounds for binary "
            "quadratic programs"
        )
    terms = tuple(_term_removal(term) for term in canonical.terms)
    rounding = sum(
        (2 * form.residual + 4 * EPSILON * len(form.inverse)) * term.energy / 2
        for form, term in zip(terms, canonical.terms, strict=True)
    )
    return RemovalForm(
        terms=terms,
        n_channels=canonical.n_channels,
        value_all=sum(form.value_all for form in terms),
        margin=rounding,
    )


def _term_removal(term: Term) -> TermRemoval:
    cross = term.cross
    if term.n_responses > term.n_rows:
        # Only C C' enters any value: (C Q) with Q orthogonal has fewer columns.
        cross = np.ascontiguousarray(np.linalg.qr(cross.T)[1].T)
    damped = term.damped_gram
    inverse, null_space, residual = _inverse(damped)
    coefficients = inverse @ cross
    if null_space.shape[1] == 0:
        # One step of refinement: B then carries the error of a solve, not of a product.
        coefficients += inverse @ (cross - damped @ coefficients)
    # The loss at B is off by the square of B's error, half of C'B by the error itself.
    image = damped @ coefficients
    value_all = 0.5 * term.energy + float(np.vdot(coefficients, 0.5 * image - cross))
    return TermRemoval(
        inverse=inverse,
        coefficients=coefficients,
        null_space=null_space,
        offsets=term.offsets,
        value_all=value_all,
        residual=residual,
    )


def _inverse(matrix: Floats) -> tuple[Floats, Floats, float]:
    """Inverse, null space and residual; rows that are zero never enter."""
    d = matrix.shape[0]
    alive = np.flatnonzero(np.diag(matrix) > 0)
    if alive.size < d:
        inner, null_inner, residual = _inverse(matrix[np.ix_(alive, alive)])
        # A zero row takes part in nothing: any positive diagonal gives the same values.
        inverse, null_space = np.eye(d), np.zeros((d, null_inner.shape[1]))
        inverse[np.ix_(alive, alive)] = inner
        null_space[alive] = null_inner
        return inverse, null_space, residual
    if d == 0:
        return matrix.copy(), np.zeros((0, 0)), 0.0
    # Rows scaled to a unit diagonal: conditioning that only comes from units goes away.
    scale = 1.0 / np.sqrt(np.diag(matrix))
    scaled = matrix * scale[:, None] * scale
    factor, failed = dpotrf(scaled, lower=1)
    if failed:
        return _range_inverse(matrix)
    inverse = np.tril(dpotri(factor, lower=1)[0])
    inverse += np.tril(inverse, -1).T
    inverse *= scale[:, None] * scale
    product = matrix @ inverse
    residual = float(np.linalg.norm(np.eye(d) - product))
    rounding = EPSILON * d**0.5 * float(np.linalg.norm(matrix) * np.linalg.norm(inverse)) / d
    if not residual + rounding <= MAX_RESIDUAL:
        return _range_inverse(matrix)
    return inverse, np.zeros((d, 0)), residual + 4 * EPSILON * d


def _range_inverse(matrix: Floats) -> tuple[Floats, Floats, float]:
    """Pseudo-inverse and null space, from the eigenvalues."""
    d = matrix.shape[0]
    values, vectors = np.linalg.eigh(matrix)
    floor = max(values[-1], 0.0) * d * EPSILON
    safe = values > floor
    if not safe.any():
        return np.zeros((d, d)), vectors, 4 * EPSILON * d
    kept = vectors[:, safe]
    inverse = (kept / values[safe]) @ kept.T
    inverse = (inverse + inverse.T) / 2
    residual = float(np.linalg.norm(kept.T @ (matrix @ (inverse @ kept)) - np.eye(safe.sum())))
    return inverse, vectors[:, ~safe], residual + 4 * EPSILON * d


def _solve_definite(matrix: Floats, right: Floats) -> Floats:
    """Solve with a small positive (semi)definite block of P."""
    if not matrix.size:
        return np.zeros_like(right)
    try:
        np.linalg.cholesky(matrix)
        return np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)
    except np.linalg.LinAlgError:
        # B_T lies in the range of P_TT: the least-norm solution attains the maximum.
        values, vectors = np.linalg.eigh(matrix)
        safe = values > max(values[-1], 0.0) * len(values) * EPSILON
        least = (vectors[:, safe].T @ right) / values[safe, None]
        return np.asarray(vectors[:, safe] @ least, dtype=np.float64)
