r"""Gradient cuts of the value function in the mask alone.

With G + ridge = R + blkdiag(D_j I) and any V, U = C - R V, the keeping side gives

.. math:: \text{value}(y) \ge \tfrac12 e - \tfrac12 \operatorname{tr}(V^\top R V)
          - \sum_j y_j \big( \tfrac12 D_j^{-1} \|U_j\|_F^2 - \mu_j \big)

for every mask: linear in y. The best V at gates y solves
:math:`(R + D Y^{-1}) V = C` over the open channels; the cut is then the tangent
of the convex perspective relaxation in y, and at a binary y it touches the value.

Variables
    y_j binary and one value per term: no weights at all.
Constraints
    The limits and the cuts added so far.
Exact or relaxation
    A relaxation for every finite set of cuts; exact once every mask that is
    still optimal in it has its own cut.
Solvers
    MILP: HiGHS.

References
----------
Bertsimas and Van Parys, "Sparse high-dimensional regression", Annals of
Statistics 48 (2020), theorem 2, with groups, several responses and a split.
"""

from dataclasses import dataclass

import numpy as np
import pyomo.environ as pyo
from numpy.typing import NDArray

from mipprune.formulation._weights import Split, canonical_refit, cross_of, splits_of
from mipprune.formulation.limits import limits_model, prices_expression
from mipprune.problem import ChannelSelection, Term, solve_psd

__all__ = ["ValueCut", "ValueCuts", "value_cut"]

Floats = NDArray[np.float64]

CLOSED = 1e-9
"""Gates below this count as closed when a cut is derived; any choice is valid."""

NEGLIGIBLE = 1e-9


@dataclass(frozen=True, eq=False)
class ValueCut:
    """``loss >= constant + slopes @ y`` for one term, valid for all y in [0, 1]^p."""

    constant: float
    slopes: Floats

    def at(self, gates: Floats) -> float:
        """Right-hand side at y."""
        return self.constant + float(self.slopes @ gates)


def value_cut(term: Term, split: Split, gates: Floats) -> ValueCut:
    """Tangent of the perspective relaxation of one term at ``gates``, float64 (p,)."""
    cross = cross_of(term)
    rows = (gates > CLOSED)[term.channel_of_row]
    scale = np.repeat(split.diagonal / np.maximum(gates, CLOSED), term.group_sizes)
    matrix = split.rest[np.ix_(rows, rows)] + np.diag(scale[rows])
    point = np.zeros_like(cross)
    point[rows] = solve_psd(matrix, cross[rows])
    image = split.rest @ point
    residual = cross - image
    norms = np.zeros(term.n_channels)
    np.add.at(norms, term.channel_of_row, (residual**2).sum(1))
    slopes = np.zeros(term.n_channels)
    np.divide(norms, split.diagonal, out=slopes, where=term.group_sizes > 0)
    constant = 0.5 * term.energy - 0.5 * float(np.vdot(point, image))
    return ValueCut(constant, -0.5 * slopes)


class ValueCuts:
    """The model in y and its growing set of cuts.

    Parameters
    ----------
    problem : ChannelSelection
        Variants refit and scale. A box is left out: the cuts stay valid, the
        limit of the relaxation is then below the optimum.

    Attributes
    ----------
    model : pyomo.ConcreteModel
        ``y``, ``loss[t]``, ``limits``, ``cuts``, ``objective``.
    """

    def __init__(self, problem: ChannelSelection) -> None:
        self.problem = canonical_refit(problem, "ValueCuts")
        self.splits = splits_of(self.problem)
        self.model = limits_model(self.problem)
        model = self.model
        model.loss = pyo.Var(range(len(self.problem.terms)))
        model.cuts = pyo.ConstraintList()
        model.objective = pyo.Objective(
            expr=pyo.quicksum(model.loss[t] for t in model.loss)
            + prices_expression(model, self.problem)
        )
        self.add(np.ones(self.problem.n_channels))

    def add(self, gates: Floats) -> float:
        """Add the cuts at ``gates``; returns their value there, prices included."""
        total = float(self.problem.prices @ gates)
        for t, (term, split) in enumerate(zip(self.problem.terms, self.splits, strict=True)):
            cut = value_cut(term, split, gates)
            # Solvers drop tiny coefficients: move them to the valid side instead.
            tiny = np.abs(cut.slopes) < NEGLIGIBLE * max(1.0, abs(cut.constant))
            constant = cut.constant + float(np.minimum(cut.slopes[tiny], 0.0).sum())
            right = pyo.quicksum(
                float(cut.slopes[j]) * self.model.y[j] for j in np.flatnonzero(~tiny)
            )
            self.model.cuts.add(self.model.loss[t] >= constant + right)
            total += cut.at(gates)
        return total
