r"""Generalised disjunctive program and its exact hull.

.. math:: \min\ \tfrac12 \operatorname{tr}(W^\top R W) - \operatorname{tr}(C^\top W) + \tfrac12 e
          + \tfrac12 \sum_{t,j} D_{tj} s_{tj} + \mu^\top y
          \quad\text{s.t.}\quad
          \begin{bmatrix} y_j \\ \|W_{tj}\|_F^2 \le s_{tj} \end{bmatrix} \vee
          \begin{bmatrix} \neg y_j \\ W_{tj} = 0,\ s_{tj} = 0 \end{bmatrix}

Variables
    y_j binary, w_tic within its bounds, s_tj within its bounds; the hull adds
    copies of w and s per disjunct.
Constraints
    Two disjuncts per channel; the limits.
Exact or relaxation
    Exact. Its hull, with the quadratic constraint in exact conic form, gives
    the perspective cone of the formulation of that name; the big-M
    transformation of Pyomo gives the weak one.
Solvers
    The transformed model: SCIP, Gurobi.

References
----------
Grossmann and Lee, "Generalized convex disjunctive programming", Computational
Optimization and Applications 26 (2003).
"""

import pyomo.environ as pyo
from numpy.typing import ArrayLike
from pyomo.gdp import Disjunct, Disjunction

from mipprune.formulation._weights import (
    add_norms,
    add_weights,
    canonical_refit,
    cross_of,
    linear_loss,
    quadratic_loss,
    splits_of,
    squares,
)
from mipprune.formulation.computed_bounds import weight_bounds
from mipprune.formulation.limits import limits_model, prices_expression
from mipprune.problem import ChannelSelection

__all__ = ["disjunctive_model", "hull_model"]


def disjunctive_model(
    problem: ChannelSelection,
    incumbent: ArrayLike | None = None,
    *,
    smallest_eigenvalue: bool = True,
) -> pyo.ConcreteModel:
    """Build the disjunctive program; transform it with ``gdp.hull`` or ``gdp.bigm``.

    Parameters
    ----------
    problem : ChannelSelection
        Variants refit and scale.
    incumbent : bool array (p,), optional
        Feasible mask that tightens the bounds, which a hull needs on every
        variable; see :func:`weight_bounds`.
    smallest_eigenvalue : bool
        As in :func:`perspective_cone_model`.

    Returns
    -------
    pyomo.ConcreteModel
        With ``y``, ``w``, ``s``, ``kept[j]``, ``removed[j]``, ``choice[j]``.
    """
    canonical = canonical_refit(problem, "disjunctive_model")
    bounds = weight_bounds(canonical, incumbent)
    splits = splits_of(canonical, smallest_eigenvalue)
    model = limits_model(canonical)
    add_weights(model, canonical, bounds)
    pairs = add_norms(model, canonical, bounds)
    model.kept = Disjunct(model.channels)
    model.removed = Disjunct(model.channels)
    for j in model.channels:
        _fill(model, canonical, j, [t for t, k in pairs if k == j])
    model.choice = Disjunction(model.channels, rule=lambda m, j: [m.kept[j], m.removed[j]])
    model.objective = pyo.Objective(
        expr=quadratic_loss(model, canonical, [split.rest for split in splits])
        + linear_loss(model, canonical)
        + pyo.quicksum(0.5 * float(splits[t].diagonal[j]) * model.s[t, j] for t, j in pairs)
        + prices_expression(model, canonical)
    )
    return model


def hull_model(
    problem: ChannelSelection,
    incumbent: ArrayLike | None = None,
    *,
    smallest_eigenvalue: bool = True,
) -> pyo.ConcreteModel:
    """The disjunctive program after Pyomo's hull with exact conic constraints."""
    model = disjunctive_model(problem, incumbent, smallest_eigenvalue=smallest_eigenvalue)
    pyo.TransformationFactory("gdp.hull").apply_to(model, exact_hull_quadratic=True)
    return model


def _fill(model: pyo.ConcreteModel, problem: ChannelSelection, j: int, terms: list[int]) -> None:
    """Contents of both disjuncts of channel j, and the link to y_j."""
    kept, removed = model.kept[j], model.removed[j]
    kept.associate = pyo.Constraint(expr=model.y[j] == 1)
    removed.associate = pyo.Constraint(expr=model.y[j] == 0)
    kept.norm = pyo.ConstraintList()
    removed.zero = pyo.ConstraintList()
    for t in terms:
        term = problem.terms[t]
        kept.norm.add(squares(model, term, t, j) <= model.s[t, j])
        removed.zero.add(model.s[t, j] == 0)
        for i in range(int(term.offsets[j]), int(term.offsets[j + 1])):
            for c in range(cross_of(term).shape[1]):
                removed.zero.add(model.w[t, i, c] == 0)
