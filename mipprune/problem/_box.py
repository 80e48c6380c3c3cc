"""Least squares with bounded weights: the value of a mask under a box."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["boxed_weights"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOLERANCE = 1e-12
MAX_SWEEPS = 20_000
SWEEPS_PER_CHECK = 8

LEAST_SHARE = 0.01
"""Part of an eliminated step that must fit into the box; less hints at a singular block."""


def boxed_weights(gram: Floats, cross: Floats, limit: Floats, start: Floats) -> Floats:
    """Minimise ``tr(W'GW)/2 - tr(C'W)`` subject to ``|W| <= limit``.

    Coordinate descent over rows, all responses at once, finds which weights
    sit at their bounds; the free ones then step to their minimum, response by
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
    """Step to the minimum over the free weights of each response, as far as the box allows.

    On a singular block the shortest step is taken: a minimiser far away would leave the box.
    """
    free = np.abs(weights) < bound
    result = weights.copy()
    for column in range(weights.shape[1]):
        rows = free[:, column]
        block = gram[np.ix_(rows, rows)]
        slope = cross[rows, column] - gram[rows] @ weights[:, column]
        result[rows, column] = _moved(block, slope, weights[rows, column], bound[rows, 0])
    worse = _residuals(gram, cross, bound, result) > _residuals(gram, cross, bound, weights)
    worse &= _losses(gram, cross, result) >= _losses(gram, cross, weights)
    result[:, worse] = weights[:, worse]
    return result


def _moved(block: Floats, slope: Floats, own: Floats, most: Floats) -> Floats:
    """``own`` plus as much of a step to the minimum as the box has room for."""
    share = 0.0
    try:
        step = np.asarray(np.linalg.solve(block, slope), dtype=np.float64)
        share = _share(own, step, most)
    except np.linalg.LinAlgError:
        pass  # exactly singular: no step by elimination
    if share <= LEAST_SHARE:
        floor = len(block) * np.finfo(np.float64).eps
        step = np.asarray(np.linalg.lstsq(block, slope, rcond=floor)[0], dtype=np.float64)
        share = _share(own, step, most)
    return np.clip(own + share * step, -most, most)


def _share(own: Floats, step: Floats, most: Floats) -> float:
    """Part of a step that stays inside ``|w| <= most``, 1 for all of it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step == 0, np.inf, (most - np.sign(step) * own) / np.abs(step))
    return float(min(1.0, room.min(initial=np.inf))) if np.all(np.isfinite(step)) else 0.0


def _losses(gram: Floats, cross: Floats, weights: Floats) -> Floats:
    """Loss per response, without the constant."""
    losses: Floats = np.sum(weights * (0.5 * (gram @ weights) - cross), axis=0)
    return losses


def _residuals(gram: Floats, cross: Floats, bound: Floats, weights: Floats) -> Floats:
    """Largest violation of the optimality conditions, per response."""
    gradient = gram @ weights - cross
    at_upper = (weights >= bound) & (gradient < 0)
    at_lower = (weights <= -bound) & (gradient > 0)
    largest: Floats = np.abs(np.where(at_upper | at_lower, 0.0, gradient)).max(axis=0, initial=0.0)
    return largest
