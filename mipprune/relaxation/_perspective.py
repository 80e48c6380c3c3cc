r"""Newton's method for the perspective relaxation, in the gates alone.

With G + rho = R + blkdiag(D_j) and D_j = L_j L_j', whitened by L, the relaxation is

.. math:: \min_{y} F(y) = \tfrac{e}{2} + \mu^\top y
    - \tfrac12 \operatorname{tr} \tilde C^\top (\tilde R + \operatorname{diag}(1/y))^{-1} \tilde C

a convex function of p variables. With :math:`U = (I + \tilde R Y)^{-1} \tilde C`,

.. math:: \partial_j F = \mu_j - \tfrac12 \|U_j\|^2, \qquad
    \partial^2_{jk} F = \langle U_j U_k^\top, [(\tilde R^{-1} + Y)^{-1}]_{jk} \rangle

so that a value costs one d x d factorisation and a Hessian three products; no
p x d x m lifting appears. The linearisation of F at y over the feasible set is the
dual bound at V = Y U: every iterate certifies.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection, Term
from mipprune.relaxation._blocks import Blocks, as_tensor
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._quadratic import minimise_quadratic

__all__ = ["PerspectiveResult", "WhitenedTerm", "minimise_perspective"]

Floats = NDArray[np.float64]

RANGE = 1e-12
ARMIJO = 1e-4


class WhitenedTerm:
    """One term in coordinates where the split is the identity.

    Directions that the split does not contain (D_j singular) are minimised
    out, because their weights are free whatever the gates are.
    """

    def __init__(self, term: Term, split: Blocks, device: torch.device) -> None:
        self.n_channels = term.n_channels
        rest = split.added_to(as_tensor(term.damped_gram, device), -1.0)
        cross = as_tensor(term.cross, device)
        self.full_cross = cross
        if cross.shape[1] > cross.shape[0]:
            cross = torch.linalg.qr(cross.mT, mode="r").R.mT
        channel = as_tensor(term.channel_of_row, device)
        free = torch.zeros(term.n_rows, dtype=torch.bool, device=device)
        roots = []
        for rows, blocks in split.stacks:
            values, vectors = torch.linalg.eigh(blocks)
            active = (values > RANGE * values[:, -1:]) & (values > 0)
            scale = torch.where(active, torch.where(active, values, 1.0).rsqrt(), 1.0)
            free[rows] = ~active
            roots.append((rows, vectors * scale[:, None, :]))
        self.roots = roots
        self.constant = term.energy / 2
        rest = self._to_white(self._to_white(rest).mT)
        cross = self._to_white(cross)
        self.free = free
        if bool(free.any()):
            rest, cross = self._without_free(rest, cross, free)
            channel = channel[~free]
        self.rest, self.cross, self.channel = (rest + rest.mT) / 2, cross, channel

    def _to_white(self, matrix: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(matrix)
        for rows, root in self.roots:
            result[rows] = root.mT @ matrix[rows]
        return result

    def _without_free(
        self, rest: torch.Tensor, cross: torch.Tensor, free: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inverse = torch.linalg.pinv(rest[free][:, free], rtol=1e-12, hermitian=True)
        both = rest[~free][:, free] @ inverse
        self.elimination = (inverse, both)
        self.constant -= 0.5 * float((cross[free] * (inverse @ cross[free])).sum())
        self.rest_all = rest
        return (
            rest[~free][:, ~free] - both @ rest[free][:, ~free],
            cross[~free] - both @ cross[free],
        )

    def value(self, gates: torch.Tensor) -> tuple[float, "_Point"]:
        """F without prices, and what the derivatives need."""
        root = gates.clamp_min(0).sqrt()[self.channel]
        inner = self.rest * root[:, None] * root
        inner.diagonal().add_(1.0)
        factor = torch.linalg.cholesky(inner)
        weights = root[:, None] * torch.cholesky_solve(root[:, None] * self.cross, factor)
        residual = self.cross - self.rest @ weights
        value = self.constant - 0.5 * float((self.cross * weights).sum())
        return value, _Point(root, factor, residual)

    def scores(self, point: "_Point") -> torch.Tensor:
        """Half the squared norms of the residual blocks, (p,)."""
        squares = 0.5 * (point.residual**2).sum(1)
        result: torch.Tensor = squares.new_zeros(self.n_channels)
        return result.index_add_(0, self.channel, squares)

    def hessian(self, point: "_Point") -> torch.Tensor:
        """Second derivatives of F, (p, p)."""
        scaled = torch.linalg.solve_triangular(
            point.factor, point.root[:, None] * self.rest, upper=False
        )
        product = (self.rest - scaled.mT @ scaled) * (point.residual @ point.residual.mT)
        p, d = self.n_channels, product.shape[0]
        columns = product.new_zeros(p, d).index_add_(0, self.channel, product)
        total: torch.Tensor = product.new_zeros(p, p)
        return total.index_add_(0, self.channel, columns.mT.contiguous())

    def dual(self, gates: torch.Tensor) -> Floats:
        """Dual point V = W(y) in the term's own coordinates, float64 (d, m)."""
        cross = self._to_white(self.full_cross)
        white = torch.zeros_like(cross)
        own = cross[~self.free]
        if bool(self.free.any()):
            own = own - self.elimination[1] @ cross[self.free]
        root = gates.clamp_min(0).sqrt()[self.channel]
        inner = self.rest * root[:, None] * root
        inner.diagonal().add_(1.0)
        factor = torch.linalg.cholesky(inner)
        weights = root[:, None] * torch.cholesky_solve(root[:, None] * own, factor)
        white[~self.free] = weights
        if bool(self.free.any()):
            inverse = self.elimination[0]
            coupling = self.rest_all[self.free][:, ~self.free] @ weights
            white[self.free] = inverse @ (cross[self.free] - coupling)
        result = torch.empty_like(white)
        for rows, scale in self.roots:
            result[rows] = scale @ white[rows]
        return np.asarray(result.cpu().numpy())


@dataclass(frozen=True, eq=False)
class _Point:
    root: torch.Tensor
    factor: torch.Tensor
    residual: torch.Tensor


@dataclass(frozen=True, eq=False)
class PerspectiveResult:
    """Gates reached, value there, and the gap to the dual bound that F's slope gives."""

    gates: Floats
    value: float
    bound: float
    iterations: int
    finished: bool


class _Objective:
    """F and its derivatives summed over the terms."""

    def __init__(
        self, problem: ChannelSelection, terms: Sequence[WhitenedTerm], device: torch.device
    ) -> None:
        self.prices, self.terms, self.device = problem.prices, terms, device

    def value(self, gates: Floats) -> tuple[float, list[_Point]]:
        y = torch.tensor(gates, device=self.device)
        total, points = float(self.prices @ gates), []
        for term in self.terms:
            value, point = term.value(y)
            total += value
            points.append(point)
        return total, points

    def gradient(self, points: Sequence[_Point]) -> Floats:
        gradient = self.prices.copy()
        for term, point in zip(self.terms, points, strict=True):
            gradient = gradient - term.scores(point).cpu().numpy()
        return gradient

    def hessian(self, points: Sequence[_Point]) -> Floats:
        total = np.zeros((self.prices.size, self.prices.size))
        for term, point in zip(self.terms, points, strict=True):
            total += term.hessian(point).cpu().numpy()
        return (total + total.T) / 2


def minimise_perspective(
    problem: ChannelSelection,
    limits: Limits,
    terms: Sequence[WhitenedTerm],
    start: Floats,
    *,
    tolerance: float,
    deadline: float,
    device: torch.device,
    max_iterations: int = 100,
) -> PerspectiveResult:
    """Sequential quadratic programming on F with exact Hessians and a line search.

    Stops when ``F - bound <= tolerance * |F|`` or at ``deadline``
    (``time.monotonic`` seconds). The returned gates are those of the best bound.
    """
    objective = _Objective(problem, terms, device)
    gates = start
    value, points = objective.value(gates)
    best_bound, best_gates, iterations, finished = -np.inf, gates, 0, False
    for _ in range(max_iterations):
        gradient = objective.gradient(points)
        corner, multipliers = limits.best(-gradient)
        bound = value - float(gradient @ gates) - limits.value(-gradient, multipliers)
        if bound > best_bound:
            best_bound, best_gates = bound, gates
        if value - best_bound <= tolerance * max(abs(value), 1e-12 * problem.energy):
            finished = True
            break
        if time.monotonic() > deadline:
            break
        iterations += 1
        hessian = objective.hessian(points)
        room = limits.limits - limits.rows @ gates
        step = minimise_quadratic(
            hessian, gradient, limits.rows, room, limits.least - gates, limits.most - gates
        )
        target = limits.pulled(corner, gates + step)
        moved = _line_search(objective, gates, target, value, gradient)
        if moved is None:
            moved = _line_search(objective, gates, corner, value, gradient)
        if moved is None:
            break
        gates, value, points = moved
    return PerspectiveResult(best_gates, value, best_bound, iterations, finished)


def _line_search(
    objective: _Objective, gates: Floats, target: Floats, value: float, gradient: Floats
) -> tuple[Floats, float, list[_Point]] | None:
    """Backtracking from ``target`` towards ``gates``; None without enough descent."""
    slope = float(gradient @ (target - gates))
    if slope >= 0:
        return None
    share = 1.0
    for _ in range(30):
        trial = gates + share * (target - gates)
        trial_value, points = objective.value(trial)
        if trial_value <= value + ARMIJO * share * slope:
            return trial, trial_value, points
        share *= 0.5
    return None
