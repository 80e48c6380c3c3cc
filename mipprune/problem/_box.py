"""Least squares with bounded weights: the value of a mask under a box."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["boxed_weights"]

Floats = NDArray[np.float64]

TOLERANCE = 1e-12
MAX_SWEEPS = 20_000


def boxed_weights(gram: Floats, cross: Floats, limit: Floats, start: Floats) -> Floats:
    """Minimise ``tr(W'GW)/2 - tr(C'W)`` subject to ``|W| <= limit``.

    Coordinate descent over rows, all responses at once, finished when the
    projected gradient is small: the result is feasible, so its loss is an
    upper bound on the minimum whatever the accuracy.

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
    if np.array_equal(weights, start):
        return weights
    diagonal = np.diag(gram)
    active = np.flatnonzero(diagonal > 0)
    scale = np.abs(cross).max(initial=0.0) + np.finfo(np.float64).tiny
    for sweep in range(MAX_SWEEPS):
        for i in active:
            gradient = gram[i] @ weights - cross[i]
            weights[i] = np.clip(weights[i] - gradient / diagonal[i], -limit[i], limit[i])
        if sweep % 8 == 7 and _residual(gram, cross, bound, weights) <= TOLERANCE * scale:
            break
    return weights


def _residual(gram: Floats, cross: Floats, bound: Floats, weights: Floats) -> float:
    """Largest violation of the optimality conditions."""
    gradient = gram @ weights - cross
    at_upper = (weights >= bound) & (gradient < 0)
    at_lower = (weights <= -bound) & (gradient > 0)
    return float(np.abs(np.where(at_upper | at_lower, 0.0, gradient)).max(initial=0.0))
