r"""Perspective cuts: the split-loss model with every quadratic linearised.

For any point V the perspective and the square are above their tangents:

.. math:: s_{tj} \ge 2 \operatorname{tr}(V_{tj}^\top W_{tj}) - y_j \|V_{tj}\|_F^2, \qquad
          q_{tk} \ge 2 \sum_c v_{tkc} r_{tkc} - \sum_c v_{tkc}^2.

Variables
    Those of the split-loss model, without its quadratic constraints.
Constraints
    Linking equalities, limits, and the cuts added so far.
Exact or relaxation
    A relaxation for every finite set of cuts; it reaches the perspective
    relaxation, and with binaries the optimum, as cuts are added.
Solvers
    MILP: HiGHS.

References
----------
Frangioni and Gentile (2006), equation (8).
"""

import numpy as np
import pyomo.environ as pyo
from numpy.typing import NDArray

from mipprune.formulation._weights import (
    add_norms,
    add_weights,
    canonical_refit,
    cross_of,
    splits_of,
)
from mipprune.formulation.limits import limits_model
from mipprune.formulation.split_loss import add_factor, split_objective
from mipprune.problem import ChannelSelection

__all__ = ["PerspectiveCuts"]

Floats = NDArray[np.float64]

NEGLIGIBLE = 1e-9


class PerspectiveCuts:
    """The linear model and its growing set of cuts.

    Parameters
    ----------
    problem : ChannelSelection
        Variants refit and scale, with or without a box.

    Attributes
    ----------
    model : pyomo.ConcreteModel
        ``y``, ``w``, ``s``, ``r``, ``q``, ``value`` (the objective), ``cuts``.
    """

    def __init__(self, problem: ChannelSelection) -> None:
        self.problem = canonical_refit(problem, "PerspectiveCuts")
        self.splits = splits_of(self.problem)
        self.model = limits_model(self.problem)
        add_weights(self.model, self.problem)
        self.pairs = add_norms(self.model, self.problem)
        add_factor(self.model, self.problem, self.splits)
        model = self.model
        model.value = pyo.Var()
        expression = split_objective(model, self.problem, self.splits, self.pairs)
        model.definition = pyo.Constraint(expr=model.value == expression)
        model.objective = pyo.Objective(expr=model.value)
        model.cuts = pyo.ConstraintList()

    def add(self, weights: list[Floats], tolerance: float | None = None) -> list[pyo.Constraint]:
        """Cuts at weights (d_t, m_t) per term.

        Parameters
        ----------
        weights : list of float64 (d_t, m_t)
            Any point gives valid cuts. Entries below 1e-9 count as zero.
        tolerance : float, optional
            Only for the weights of the model's current solution: leave out the
            cuts that it violates by no more than this.
        """
        model, added = self.model, []
        weights = [np.where(np.abs(w) < NEGLIGIBLE, 0.0, w) for w in weights]
        for t, j in self.pairs:
            term = self.problem.terms[t]
            rows = range(int(term.offsets[j]), int(term.offsets[j + 1]))
            v = weights[t]
            norm = float((v[list(rows)] ** 2).sum())
            if not self._below(model.s[t, j], norm, tolerance):
                continue
            slope = pyo.quicksum(
                2 * float(v[i, c]) * model.w[t, i, c] for i in rows for c in range(v.shape[1])
            )
            added.append(model.cuts.add(model.s[t, j] >= slope - norm * model.y[j]))
        for t, split in enumerate(self.splits):
            made = split.factor @ weights[t]
            made = np.where(np.abs(made) < NEGLIGIBLE, 0.0, made)
            for k, row in enumerate(made):
                norm = float((row**2).sum())
                if self._below(model.q[t, k], norm, tolerance):
                    slope = pyo.quicksum(
                        2 * float(value) * model.r[t, k, c] for c, value in enumerate(row)
                    )
                    added.append(model.cuts.add(model.q[t, k] >= slope - norm))
        return added

    @staticmethod
    def _below(variable: pyo.Var, level: float, tolerance: float | None) -> bool:
        """Whether a cut at ``level`` is worth adding for the variable's current value."""
        if level <= 0:
            return False
        return tolerance is None or variable.value is None or variable.value < level - tolerance

    def weights(self) -> list[Floats]:
        """Weights in the current solution of the model."""
        result = []
        for t, term in enumerate(self.problem.terms):
            d, m = cross_of(term).shape
            result.append(
                np.array(
                    [[pyo.value(self.model.w[t, i, c]) for c in range(m)] for i in range(d)]
                ).reshape(d, m)
            )
        return result
