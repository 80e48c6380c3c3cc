r"""Big-M: weights switched by their bounds.

.. math:: \min\ \sum_t \tfrac12 \operatorname{tr}(W_t^\top (G_t + \rho_t) W_t)
          - \operatorname{tr}(C_t^\top W_t) + \tfrac12 e_t + \mu^\top y
          \quad\text{s.t.}\quad -M_{tj} y_j \le W_{tj} \le M_{tj} y_j

Variables
    y_j binary; w_tic free, one per row and response (at most as many responses
    as rows: only C C' matters).
Constraints
    Two per weight, and the limits of the mask.
Exact or relaxation
    Exact for bounds that hold for an optimal solution; its relaxation is weak.
Solvers
    Convex quadratic objective, linear constraints, binaries: SCIP, Gurobi.
    HiGHS takes its relaxation only.
"""

import numpy as np
import pyomo.environ as pyo
from numpy.typing import ArrayLike

from mipprune.formulation._weights import (
    add_weights,
    canonical_refit,
    linear_loss,
    quadratic_loss,
)
from mipprune.formulation.computed_bounds import weight_bounds
from mipprune.formulation.limits import limits_model, prices_expression
from mipprune.problem import ChannelSelection

__all__ = ["big_m_model"]


def big_m_model(problem: ChannelSelection, incumbent: ArrayLike | None = None) -> pyo.ConcreteModel:
    """Build the big-M model.

    Parameters
    ----------
    problem : ChannelSelection
        Variants refit and scale.
    incumbent : bool array (p,), optional
        Feasible mask that tightens the bounds, see :func:`weight_bounds`.

    Returns
    -------
    pyomo.ConcreteModel
        With ``y``, ``w``, ``limits``, ``box``, ``switch``, ``objective``.

    Raises
    ------
    InputError
        Variant mask, or no valid bound on the weights is known.
    """
    canonical = canonical_refit(problem, "big_m_model")
    bounds = weight_bounds(canonical, incumbent)
    model = limits_model(canonical)
    add_weights(model, canonical, bounds)
    model.switch = pyo.ConstraintList()
    for t, i, c in model.entries:
        term = canonical.terms[t]
        j = int(term.channel_of_row[i])
        limit = float(bounds[t][j])
        if np.isfinite(term.big_m[j]) and limit >= term.big_m[j]:
            continue  # the box already switches this weight
        model.switch.add(model.w[t, i, c] <= limit * model.y[j])
        model.switch.add(model.w[t, i, c] >= -limit * model.y[j])
    grams = [term.damped_gram for term in canonical.terms]
    model.objective = pyo.Objective(
        expr=quadratic_loss(model, canonical, grams)
        + linear_loss(model, canonical)
        + prices_expression(model, canonical)
    )
    return model
