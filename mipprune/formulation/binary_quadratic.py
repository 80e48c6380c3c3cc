r"""Variant mask: a binary quadratic program, linearised by products.

.. math:: \min\ c + v^\top y + \sum_{i<j} Q_{ij} z_{ij} \quad\text{s.t.}\quad
          z_{ij} \le y_i,\ z_{ij} \le y_j,\ z_{ij} \ge y_i + y_j - 1,\ z_{ij} \ge 0

Variables
    y_j binary; z_ij continuous, one per pair with Q_ij != 0.
Constraints
    The two from above where Q_ij < 0, the two from below where Q_ij > 0 (the
    others never bind), and the limits.
Exact or relaxation
    Exact; the relaxation is McCormick's.
Solvers
    MILP: HiGHS, SCIP, Gurobi.

References
----------
Glover and Woolsey, "Converting the 0-1 polynomial programming problem to a 0-1
linear program", Operations Research 22 (1974).
"""

import pyomo.environ as pyo

from mipprune.formulation.limits import limits_model
from mipprune.problem import ChannelSelection

__all__ = ["binary_quadratic_model"]


def binary_quadratic_model(problem: ChannelSelection) -> pyo.ConcreteModel:
    """Build the linearised program of variant mask.

    Returns
    -------
    pyomo.ConcreteModel
        With ``y``, ``z``, ``limits``, ``products``, ``objective``.

    Raises
    ------
    InputError
        Variants with free weights.
    """
    matrix, vector, constant = problem.binary_quadratic()
    model = limits_model(problem)
    p = problem.n_channels
    pairs = [(i, j) for i in range(p) for j in range(i + 1, p) if matrix[i, j] != 0]
    model.z = pyo.Var(pairs, bounds=(0, 1))
    model.products = pyo.ConstraintList()
    for i, j in pairs:
        if matrix[i, j] < 0:
            model.products.add(model.z[i, j] <= model.y[i])
            model.products.add(model.z[i, j] <= model.y[j])
        else:
            model.products.add(model.z[i, j] >= model.y[i] + model.y[j] - 1)
    model.objective = pyo.Objective(
        expr=constant
        + pyo.quicksum(float(vector[j]) * model.y[j] for j in range(p))
        + pyo.quicksum(float(matrix[i, j]) * model.z[i, j] for i, j in pairs)
    )
    return model
