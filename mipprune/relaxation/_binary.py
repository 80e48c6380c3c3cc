r"""Bounds for variant ``mask``: a binary quadratic program made convex.

With y binary, y_j^2 = y_j, so that for every diagonal d

.. math:: c + v^\top y + \tfrac12 y^\top M y = c + (v - \tfrac{d}{2})^\top y
    + \tfrac12 y^\top (M + \operatorname{diag} d) y

and where R = M + diag(d) is psd, any point u gives the bound
:math:`c - \tfrac12 u^\top R u - \max_y \sum_j y_j (\tfrac{d_j}{2} - v_j - (R u)_j)`.
Entries of d may have any sign. The best d solves a semidefinite program (QCR:
Billionnet and Elloumi 2007); here it is climbed by a barrier for R psd.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.relaxation._descent import descend
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._quadratic import minimise_quadratic

__all__ = ["BinaryResult", "evaluate_binary", "relax_binary"]

Floats = NDArray[np.float64]
UNIT = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class BinaryResult:
    """Diagonal, dual point (the relaxed gates), multipliers and the bound they prove."""

    diagonal: Floats
    gates: Floats
    multipliers: Floats
    value: float
    bound: float
    iterations: int
    finished: bool


def evaluate_binary(
    problem: ChannelSelection, limits: Limits, diagonal: Floats, point: Floats
) -> tuple[float, Floats]:
    """Valid bound and multipliers at any ``point``; -inf where R is not provably psd."""
    matrix, vector, constant = problem.binary_quadratic()
    rest = matrix + np.diag(diagonal)
    if not _is_psd(rest):
        return -np.inf, np.zeros(len(limits.limits))
    image = rest @ point
    scores = diagonal / 2 - vector - image
    _, multipliers = limits.best(scores)
    best = limits.value(scores, multipliers)
    bound = constant - 0.5 * float(point @ image) - best
    size = constant + np.abs(point) @ (np.abs(rest) @ np.abs(point))
    size += np.abs(diagonal).sum() + np.abs(vector).sum() + (np.abs(rest) @ np.abs(point)).sum()
    size += float(np.abs(multipliers * limits.limits).sum() + np.abs(scores).sum())
    return bound - 4 * UNIT * (problem.n_channels + 16) * float(size), multipliers


def relax_binary(
    problem: ChannelSelection,
    limits: Limits,
    *,
    optimise: bool,
    tolerance: float,
    deadline: float,
) -> BinaryResult:
    """Bound by the smallest-eigenvalue shift, or by the best diagonal found."""
    matrix, vector, _ = problem.binary_quadratic()
    p = problem.n_channels
    size = float(np.abs(matrix).max(initial=0.0)) + 1e-300
    lowest = float(np.linalg.eigvalsh(matrix)[0]) - 1e-10 * p * size
    diagonal = np.full(p, -min(lowest, 0.0) + 1e-10 * p * size)
    best = _solve(problem, limits, diagonal, 0)
    if not optimise:
        return best
    steps = 0
    # Without targets the size of the objective comes from the prices or the weights.
    scale = problem.energy / 2 or float(np.abs(vector).max(initial=0.0)) or 1e-300
    for weight in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        if time.monotonic() > deadline:
            return best
        diagonal, used = _climb(problem, limits, diagonal, weight * scale / p, deadline)
        steps += used
        found = _solve(problem, limits, diagonal, steps)
        improvement = found.bound - best.bound
        if improvement > 0:
            best = found
        if weight < 1e-3 and improvement < tolerance * abs(best.bound):
            break
    return best


def _solve(problem: ChannelSelection, limits: Limits, diagonal: Floats, steps: int) -> BinaryResult:
    matrix, vector, constant = problem.binary_quadratic()
    gates = minimise_quadratic(
        matrix + np.diag(diagonal),
        vector - diagonal / 2,
        limits.rows,
        limits.limits,
        limits.least,
        limits.most,
    )
    bound, multipliers = evaluate_binary(problem, limits, diagonal, gates)
    linear = float((vector - diagonal / 2) @ gates)
    value = constant + linear + 0.5 * float(gates @ (matrix + np.diag(diagonal)) @ gates)
    return BinaryResult(diagonal, gates, multipliers, value, bound, steps, True)


def _climb(
    problem: ChannelSelection, limits: Limits, start: Floats, weight: float, deadline: float
) -> tuple[Floats, int]:
    """Maximise the relaxation over d plus ``weight * logdet(M + diag d)``."""
    matrix, vector, _ = problem.binary_quadratic()
    scale = max(float(np.abs(matrix).max(initial=0.0)), 1e-300)

    def negative(d: Floats) -> tuple[float, Floats]:
        rest = matrix + np.diag(d * scale)
        try:
            factor = np.linalg.cholesky(rest)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(d)
        y = minimise_quadratic(
            rest,
            vector - d * scale / 2,
            limits.rows,
            limits.limits,
            limits.least,
            limits.most,
        )
        value = float((vector - d * scale / 2) @ y + 0.5 * y @ rest @ y)
        value += 2 * weight * float(np.log(np.diag(factor) / np.sqrt(scale)).sum())
        with np.errstate(over="ignore", invalid="ignore"):
            slope = 0.5 * (y**2 - y) + weight * (np.linalg.inv(factor) ** 2).sum(0)
        if not np.all(np.isfinite(slope)):  # at the edge of what is psd
            return np.inf, np.zeros_like(d)
        return -value, -slope * scale

    base = start / scale + 1e-3
    point, steps = descend(negative, base, max_iterations=60, deadline=deadline)
    return point * scale, steps


def _is_psd(matrix: Floats) -> bool:
    """Cholesky of the matrix less Rump's shift succeeds."""
    shift = (len(matrix) + 3) * UNIT * float(np.abs(np.trace(matrix)))
    try:
        np.linalg.cholesky(matrix - shift * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True
