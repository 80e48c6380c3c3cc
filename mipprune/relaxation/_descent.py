"""Limited-memory quasi-Newton descent that stays inside an open domain."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["descend"]

Floats = NDArray[np.float64]

MEMORY = 20
ARMIJO = 1e-4


def descend(
    function: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    *,
    max_iterations: int,
    deadline: float,
    tolerance: float = 1e-9,
) -> tuple[Floats, int]:
    """Minimise a smooth function that is inf outside an open set.

    L-BFGS directions (Nocedal and Wright 2006, algorithm 7.4) with halving: a
    step out of the domain has value inf and is halved like any bad one. Stops
    when an iteration gains less than ``tolerance`` relative to the value.

    Returns
    -------
    point : float64 (n,)
    iterations : int
    """
    point = start
    value, slope = function(point)
    pairs: list[tuple[Floats, Floats, float]] = []
    small = 0
    for iteration in range(max_iterations):
        if time.monotonic() > deadline:
            return point, iteration
        direction = _direction(slope, pairs)
        descent = float(slope @ direction)
        if descent >= 0:
            pairs, direction = [], -slope
            descent = -float(slope @ slope)
        step = 1.0 if pairs else min(1.0, 0.1 * (1 + _norm(point)) / _norm(slope))
        for _ in range(40):
            trial = point + step * direction
            new_value, new_slope = function(trial)
            if new_value <= value + ARMIJO * step * descent:
                break
            step *= 0.5
        else:
            if not pairs:
                return point, iteration
            pairs = []
            continue
        moved, change = trial - point, new_slope - slope
        curvature = float(moved @ change)
        if curvature > 1e-12 * _norm(moved) * _norm(change):
            pairs = [*pairs[1 - MEMORY :], (moved, change, 1 / curvature)]
        small = small + 1 if value - new_value <= tolerance * abs(new_value) else 0
        point, value, slope = trial, new_value, new_slope
        if small >= 3:
            return point, iteration + 1
    return point, max_iterations


def _norm(vector: Floats) -> float:
    return max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)


def _direction(slope: Floats, pairs: list[tuple[Floats, Floats, float]]) -> Floats:
    direction = -slope
    shares = []
    for moved, change, weight in reversed(pairs):
        share = weight * float(moved @ direction)
        shares.append(share)
        direction = direction - share * change
    if pairs:
        moved, change, _ = pairs[-1]
        direction = direction * (float(moved @ change) / float(change @ change))
    for (moved, change, weight), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - weight * float(change @ direction)) * moved
    return direction
