"""Bounds on pre-activations from linear programs."""

import math
import time
from typing import Any

import numpy as np

from mipprune.formulation.relu_network import (
    NetworkPruning,
    PreactivationBounds,
    build_relu_network,
)

__all__ = ["tighten_bounds"]


def tighten_bounds(
    task: NetworkPruning, bounds: PreactivationBounds, *, time_limit: float = math.inf
) -> PreactivationBounds:
    """Minimise and maximise open pre-activations over the linear relaxation.

    Valid for every feasible mask: the limits on outputs take part. Stops at
    ``time_limit`` seconds with what it has.
    """
    import pyomo.environ as pyo
    from pyomo.contrib.appsi.solvers import Highs

    began = time.monotonic()
    lower = [a.copy() for a in bounds.lower]
    upper = [a.copy() for a in bounds.upper]
    model = build_relu_network(task, bounds, "perspective")
    pyo.TransformationFactory("core.relax_integer_vars").apply_to(model)
    model.objective.deactivate()
    probe = model.probe = pyo.Var()
    row = model.probe_row = pyo.Constraint(expr=probe == 0)
    model.probe_objective = pyo.Objective(expr=probe)
    engine = Highs()
    engine.config.load_solution = False
    for layer in range(1, len(task.network.weights) - 1):
        for i, j in np.argwhere((lower[layer] < 0) & (upper[layer] > 0)).tolist():
            row.set_value(probe == _preactivation(model, task, bounds, layer, i, j))
            for sense, side in ((1, lower), (-1, upper)):
                if time.monotonic() - began > time_limit:
                    return PreactivationBounds(tuple(lower), tuple(upper))
                model.probe_objective.set_value(sense * probe)
                reached = engine.solve(model).best_objective_bound
                if reached is None:
                    continue  # no mask meets the limits, or the solver gave up: keep what holds
                found = sense * reached
                slack = 1e-7 * max(abs(found), 1.0)
                if np.isfinite(found):
                    tightest = max if sense == 1 else min
                    side[layer][i, j] = tightest(side[layer][i, j], found - sense * slack)
    return PreactivationBounds(tuple(lower), tuple(upper))


def _preactivation(
    model: Any, task: NetworkPruning, bounds: PreactivationBounds, layer: int, i: int, j: int
) -> Any:
    """Pre-activation as an expression in the variables of ``model``."""
    w, b = task.network.weights[layer][j], task.network.biases[layer][j]
    total: Any = float(b)
    for k, weight in enumerate(w):
        limit = float(bounds.upper[layer - 1][i, k])
        if weight == 0.0 or limit <= 0:
            continue
        before = limit * model.keep[0, k] if layer == 1 else model.hidden[layer - 1, i, k]
        total = total + float(weight) * before
    return total
