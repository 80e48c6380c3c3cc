r"""The mask and its limits, shared by every formulation.

Variables
    y_j binary, one per channel.
Constraints
    :math:`l \le A y \le u` for every resource, y_j = 1 or 0 where forced, and
    :math:`\sum_{j \in L_k} y_j = \sum_{j \in L_0} y_j` for the labels of a part.
Exact or relaxation
    Exact; resources are widened by the rounding slack of
    :class:`mipprune.problem.Resource`.
Solvers
    Linear with binaries: any MILP solver.
"""

import numpy as np
import pyomo.environ as pyo
from numpy.typing import ArrayLike, NDArray

from mipprune.problem import ChannelSelection, require_problem

__all__ = ["fix_mask", "limits_model", "mask_of", "relax_mask"]

SLACK = 1e-9


def limits_model(problem: ChannelSelection) -> pyo.ConcreteModel:
    """Model with ``y`` (binary, indexed by channel) and the ``limits`` of the problem."""
    model = pyo.ConcreteModel()
    p = require_problem(problem).n_channels
    model.channels = pyo.RangeSet(0, p - 1)
    model.y = pyo.Var(model.channels, domain=pyo.Binary)
    for j in range(p):
        if problem.forced_in[j]:
            model.y[j].setlb(1)
        if problem.forced_out[j]:
            model.y[j].setub(0)
    model.limits = pyo.ConstraintList()
    for resource in problem.resources:
        used = pyo.quicksum(
            float(cost) * model.y[j] for j, cost in enumerate(resource.costs) if cost != 0
        )
        slack = SLACK * float(resource.costs.sum())
        if np.isfinite(resource.upper) and resource.costs.any():
            model.limits.add(used <= resource.upper + slack)
        if np.isfinite(resource.lower) and resource.lower > 0:
            model.limits.add(used >= resource.lower - slack)
    for part in problem.parts:
        labels = np.unique(part[part >= 0])
        first = _count(model, part, labels[:1])
        for label in labels[1:]:
            model.limits.add(_count(model, part, np.array([label])) == first)
    return model


def prices_expression(model: pyo.ConcreteModel, problem: ChannelSelection) -> pyo.Expression:
    """``sum_j mu_j y_j``."""
    return pyo.quicksum(
        float(price) * model.y[j] for j, price in enumerate(problem.prices) if price != 0
    )


def mask_of(model: pyo.ConcreteModel) -> NDArray[np.bool_]:
    """The mask in the solution of a model, bool (p,)."""
    return np.array([pyo.value(model.y[j]) > 0.5 for j in model.channels], dtype=bool)


def fix_mask(model: pyo.ConcreteModel, mask: ArrayLike) -> None:
    """Fix y: what remains is convex."""
    for j, kept in enumerate(np.asarray(mask)):
        model.y[j].fix(int(kept))


def relax_mask(model: pyo.ConcreteModel) -> None:
    """Let y vary in [0, 1]."""
    for j in model.channels:
        model.y[j].domain = pyo.Reals
        model.y[j].setlb(max(0.0, model.y[j].lb or 0.0))
        model.y[j].setub(1.0 if model.y[j].ub is None else min(1.0, model.y[j].ub))


def _count(
    model: pyo.ConcreteModel, part: NDArray[np.int64], labels: NDArray[np.int64]
) -> pyo.Expression:
    members = [j for j in range(part.size) if part[j] in labels]
    return pyo.quicksum(model.y[j] for j in members)
