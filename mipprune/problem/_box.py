"""Least squares with bounded weights: the value of a mask under a box."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["boxed_weights"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOLERANCE = 1e-12
MAX_SWEEPS = 20_000
SWEEPS_PER_CHECK = 8


def boxed_weights(gram: Floats, cross: Floats, limit: Floats, start: Floats) -> Floats:
    """Minimise ``tr(W'GW)/2 - tr(C'W)`` subject to ``|W| <= limit``.

    Coordinate descent over rows, all responses at once, finds which weights
    sit at their bounds; the free ones are then solved exactly, response by
    response, and a response is finished when its optimality conditions hold.
    The result is feasible, so its loss is an upper bound on the minimum
    whatever the accuracy.

    Parameters
    ----------
    gram : float64 (s, s), positive semidefinite
    cross : float64 (s, m)
    limit : float64 (s,), positive, may be infinite
    start : float64 (s, m), the minimiser without the box

    Returns
    -------
    float64 (s, m)
    """
    bound = limit[:, None]
    weights = np.clip(start, -bound, bound)
    todo = np.flatnonzero(np.any(weights != start, axis=0))
    diagonal = np.diag(gram)
    active = np.flatnonzero(diagonal > 0)
    scale = np.abs(cross).max(initial=0.0) + np.finfo(np.float64).tiny
    for _ in range(0, MAX_SWEEPS, SWEEPS_PER_CHECK):
        if not todo.size:
            break
        part, right = weights[:, todo], cross[:, todo]
        for i in np.tile(active, SWEEPS_PER_CHECK):
            gradient = gram[i] @ part - right[i]
            part[i] = np.clip(part[i] - gradient / diagonal[i], -limit[i], limit[i])
        part = _polished(gram, right, bound, part)
        weights[:, todo] = part
        todo = todo[_residuals(gram, right, bound, part) > TOLERANCE * scale]
    return weights


def _polished(gram: Floats, cross: Floats, bound: Floats, weights: Floats) -> Floats:
    """Solve the free weights of each response exactly where that stays inside the box."""
    free = np.abs(weights) < bound
    result = weights.copy()
    for column in range(weights.shape[1]):
        rows = free[:, column]
        fixed = weights[~rows, column]
        right = cross[rows, column] - gram[np.ix_(rows, ~rows)] @ fixed
        try:
            solved = np.linalg.solve(gram[np.ix_(rows, rows)], right)
        except np.linalg.LinAlgError:
            continue
        if np.all(np.abs(solved) <= bound[rows, 0]):
            result[rows, column] = solved
    worse = _residuals(gram, cross, bound, result) > _residuals(gram, cross, bound, weights)
    result[:, worse] = weights[:, worse]
    return result


def _residuals(gram: Floats, cross: Floats, bound: Floats, weights: Floats) -> Floats:
    """Largest violation of the optimality conditions, per response."""
    gradient = gram @ weights - cross
    at_upper = (weights >= bound) & (gradient < 0)
    at_lower = (weights <= -bound) & (gradient > 0)
    largest: Floats = np.abs(np.where(at_upper | at_lower, 0.0, gradient)).max(axis=0, initial=0.0)
    return largest
