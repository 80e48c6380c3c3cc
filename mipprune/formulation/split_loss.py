r"""Perspective with the loss split into squares along a factor of R = F'F.

.. math:: \min\ \tfrac12 \sum_{t,k} q_{tk} - \operatorname{tr}(C^\top W) + \tfrac12 e
          + \tfrac12 \sum_{t,j} D_{tj} s_{tj} + \mu^\top y
          \quad\text{s.t.}\quad r_{tkc} = (F_t W_t)_{kc},\quad
          \sum_c r_{tkc}^2 \le q_{tk},\quad \|W_{tj}\|_F^2 \le s_{tj}\, y_j

Variables
    Those of the perspective cone model; r_tkc free and q_tk >= 0, one row k per
    row of the factor.
Constraints
    One convex quadratic constraint per row of the factor in place of the dense
    quadratic objective; linking equalities; the cones and the limits.
Exact or relaxation
    Exact at binary y; the same relaxation as the cone model, but a solver that
    linearises constraint by constraint gets many small cuts.
Solvers
    SCIP, Gurobi.
"""

import pyomo.environ as pyo
from numpy.typing import ArrayLike

from mipprune.formulation._weights import (
    Split,
    add_norms,
    add_weights,
    canonical_refit,
    cross_of,
    linear_loss,
    splits_of,
    squares,
)
from mipprune.formulation.computed_bounds import weight_bounds
from mipprune.formulation.limits import limits_model, prices_expression
from mipprune.problem import ChannelSelection

__all__ = ["split_loss_model"]


def split_loss_model(
    problem: ChannelSelection,
    incumbent: ArrayLike | None = None,
    *,
    smallest_eigenvalue: bool = True,
) -> pyo.ConcreteModel:
    """Build the perspective model with a split loss.

    Parameters, result and errors as :func:`perspective_cone_model`; further
    components ``r``, ``q``, ``link`` and ``square``.
    """
    canonical = canonical_refit(problem, "split_loss_model")
    splits = splits_of(canonical, smallest_eigenvalue)
    model = limits_model(canonical)
    bounds = None if incumbent is None else weight_bounds(canonical, incumbent)
    add_weights(model, canonical, bounds)
    pairs = add_norms(model, canonical, bounds)
    add_factor(model, canonical, splits)
    model.square = pyo.ConstraintList()
    for t, k in model.q:
        columns = range(cross_of(canonical.terms[t]).shape[1])
        model.square.add(pyo.quicksum(model.r[t, k, c] ** 2 for c in columns) <= model.q[t, k])
    model.cone = pyo.ConstraintList()
    for t, j in pairs:
        model.cone.add(squares(model, canonical.terms[t], t, j) <= model.s[t, j] * model.y[j])
    model.objective = pyo.Objective(expr=split_objective(model, canonical, splits, pairs))
    return model


def add_factor(model: pyo.ConcreteModel, problem: ChannelSelection, splits: list[Split]) -> None:
    """``r = F W`` and the variables q that bound its squares."""
    rows = [(t, k) for t, split in enumerate(splits) for k in range(len(split.factor))]
    model.q = pyo.Var(rows, domain=pyo.NonNegativeReals)
    entries = [(t, k, c) for t, k in rows for c in range(cross_of(problem.terms[t]).shape[1])]
    model.r = pyo.Var(entries)
    model.link = pyo.ConstraintList()
    for t, k, c in entries:
        row = splits[t].factor[k]
        made = pyo.quicksum(
            float(row[i]) * model.w[t, i, c] for i in range(row.size) if row[i] != 0
        )
        model.link.add(made == model.r[t, k, c])


def split_objective(
    model: pyo.ConcreteModel,
    problem: ChannelSelection,
    splits: list[Split],
    pairs: list[tuple[int, int]],
) -> pyo.Expression:
    """Linear objective in q, w, s and y."""
    return (
        0.5 * pyo.quicksum(model.q[key] for key in model.q)
        + linear_loss(model, problem)
        + pyo.quicksum(0.5 * float(splits[t].diagonal[j]) * model.s[t, j] for t, j in pairs)
        + prices_expression(model, problem)
    )
