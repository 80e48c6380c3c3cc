r"""Perspective: the separable part of the loss as rotated cones.

With G + ridge = R + blkdiag(D_j I), R positive semidefinite,

.. math:: \min\ \sum_t \tfrac12 \operatorname{tr}(W_t^\top R_t W_t)
          - \operatorname{tr}(C_t^\top W_t) + \tfrac12 e_t
          + \tfrac12 \sum_{t,j} D_{tj} s_{tj} + \mu^\top y
          \quad\text{s.t.}\quad \|W_{tj}\|_F^2 \le s_{tj}\, y_j

Variables
    y_j binary; w_tic free; s_tj >= 0, one per channel and term.
Constraints
    One rotated second-order cone per channel and term, and the limits.
Exact or relaxation
    Exact at binary y (y_j = 0 forces W_j = 0); with y relaxed it is the
    tightest convex relaxation channel by channel for this D.
Solvers
    Second-order cones with binaries: SCIP, Gurobi. Relaxation: any cone solver.

References
----------
Frangioni and Gentile, "Perspective cuts for a class of convex 0-1 mixed integer
programs", Mathematical Programming 106 (2006), section 2.
"""

import pyomo.environ as pyo
from numpy.typing import ArrayLike

from mipprune.formulation._weights import (
    add_norms,
    add_weights,
    canonical_refit,
    linear_loss,
    quadratic_loss,
    splits_of,
    squares,
)
from mipprune.formulation.computed_bounds import weight_bounds
from mipprune.formulation.limits import limits_model, prices_expression
from mipprune.problem import ChannelSelection

__all__ = ["perspective_cone_model"]


def perspective_cone_model(
    problem: ChannelSelection,
    incumbent: ArrayLike | None = None,
    *,
    smallest_eigenvalue: bool = True,
) -> pyo.ConcreteModel:
    """Build the perspective model.

    Parameters
    ----------
    problem : ChannelSelection
        Variants refit and scale, with or without a box.
    incumbent : bool array (p,), optional
        Feasible mask; adds valid bounds on w and s, which solvers like but the
        formulation does not need. See :func:`weight_bounds`.
    smallest_eigenvalue : bool
        Move the smallest eigenvalue of each Gram matrix into D beside the ridge.

    Returns
    -------
    pyomo.ConcreteModel
        With ``y``, ``w``, ``s``, ``cone``, ``limits``, ``box``, ``objective``.

    Raises
    ------
    InputError
        Variant mask, or neither ridge nor a positive smallest eigenvalue.
    """
    canonical = canonical_refit(problem, "perspective_cone_model")
    splits = splits_of(canonical, smallest_eigenvalue)
    model = limits_model(canonical)
    bounds = None if incumbent is None else weight_bounds(canonical, incumbent)
    add_weights(model, canonical, bounds)
    pairs = add_norms(model, canonical, bounds)
    model.cone = pyo.ConstraintList()
    for t, j in pairs:
        model.cone.add(squares(model, canonical.terms[t], t, j) <= model.s[t, j] * model.y[j])
    model.objective = pyo.Objective(
        expr=quadratic_loss(model, canonical, [split.rest for split in splits])
        + linear_loss(model, canonical)
        + pyo.quicksum(0.5 * float(splits[t].diagonal[j]) * model.s[t, j] for t, j in pairs)
        + prices_expression(model, canonical)
    )
    return model
