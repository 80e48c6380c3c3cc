r"""The perspective relaxation through cvxpy and Clarabel: an independent oracle.

.. math:: \min_{W, y, s} \tfrac12 \operatorname{tr}(W^\top R W) - \operatorname{tr}(C^\top W)
    + \tfrac{e}{2} + \tfrac12 \sum_j s_j + \mu^\top y, \qquad
    \|L_j^\top W_j\|_F^2 \le s_j y_j

with G + ridge = R + blkdiag(L_j L_j'), 0 <= y <= 1, A y <= b and optionally
|W_j| <= M_j y_j. It shares no code with :mod:`mipprune.relaxation` but the problem
class and grows as p x d x m cones: for tests and comparisons.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import InputError, MissingExtraError, SolverError
from mipprune.problem import ChannelSelection

__all__ = ["ConicRelaxation", "conic_relaxation"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ConicRelaxation:
    """Optimal value, gates and weights that the conic solver reports."""

    value: float
    gates: Floats
    weights: tuple[Floats, ...]
    seconds: float
    status: str


def conic_relaxation(
    problem: ChannelSelection,
    splits: Sequence[Sequence[Floats]] | None = None,
    *,
    box: bool = False,
    tolerance: float = 1e-9,
) -> ConicRelaxation:
    """Solve the perspective relaxation with a generic conic solver.

    Parameters
    ----------
    problem : ChannelSelection
        Variant ``refit`` or ``scale``.
    splits : per term, per channel float64 (g_j, g_j), optional
        Positive definite blocks D_j with G + ridge - blkdiag(D) psd; default ridge I.
    box : bool
        Also demand ``|W_j| <= M_j y_j``; zero blocks are then allowed (big-M).
    tolerance : float
        Clarabel's absolute and relative gap and feasibility.

    Returns
    -------
    ConicRelaxation
        ``value`` is a primal value up to the tolerance, not a certified bound.
    """
    try:
        import cvxpy
        from cvxpy.atoms.affine.binary_operators import multiply
        from cvxpy.atoms.affine.sum import sum as total
        from cvxpy.atoms.elementwise.abs import abs as absolute
        from cvxpy.atoms.quad_over_lin import quad_over_lin
        from cvxpy.atoms.sum_squares import sum_squares
    except ImportError as error:
        raise MissingExtraError("cvxpy", "test", "for the conic relaxation") from error

    canonical = problem.canonical()
    if canonical.variant != "refit":
        raise InputError("conic_relaxation takes variants 'refit' and 'scale'")
    y = cvxpy.Variable(canonical.n_channels)
    least = canonical.forced_in.astype(np.float64)
    constraints = [y >= least, y <= 1.0 - canonical.forced_out]
    rows, limits = canonical.upper_constraints
    if len(rows):
        constraints.append(rows @ y <= limits)
    objective = canonical.prices @ y
    variables = []
    for index, term in enumerate(canonical.terms):
        blocks = _blocks(canonical, index, splits)
        weights = cvxpy.Variable(term.cross.shape)
        variables.append(weights)
        rest = term.damped_gram.copy()
        for j, block in enumerate(blocks):
            own = slice(int(term.offsets[j]), int(term.offsets[j + 1]))
            rest[own, own] -= block
            if own.stop == own.start:
                continue
            if np.any(block):
                share = cvxpy.Variable(nonneg=True)
                objective += 0.5 * share
                root = np.linalg.cholesky(block).T
                constraints.append(quad_over_lin(root @ weights[own], y[j]) <= share)
            if box and np.isfinite(term.big_m[j]):
                constraints.append(absolute(weights[own]) <= term.big_m[j] * y[j])
        values, vectors = np.linalg.eigh(rest)
        factor = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        objective += 0.5 * sum_squares(factor @ weights)
        objective += term.energy / 2 - total(multiply(term.cross, weights))
    program = cvxpy.Problem(cvxpy.Minimize(objective), constraints)
    with warnings.catch_warnings():
        # The status is returned: an inaccurate end is the caller's to judge.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        program.solve(
            solver=cvxpy.CLARABEL,
            tol_gap_abs=tolerance,
            tol_gap_rel=tolerance,
            tol_feas=tolerance,
        )
    if program.status not in ("optimal", "optimal_inaccurate") or y.value is None:
        raise SolverError(f"Clarabel ended with status '{program.status}'")
    return ConicRelaxation(
        value=float(program.value),
        gates=np.asarray(y.value, dtype=np.float64),
        weights=tuple(np.asarray(w.value, dtype=np.float64) for w in variables),
        seconds=float(program.solver_stats.solve_time or 0.0),
        status=str(program.status),
    )


def _blocks(
    problem: ChannelSelection, index: int, splits: Sequence[Sequence[Floats]] | None
) -> list[Floats]:
    term = problem.terms[index]
    if splits is None:
        pairs = zip(term.ridge, term.group_sizes, strict=True)
        return [ridge * np.eye(int(size)) for ridge, size in pairs]
    return [np.asarray(block, dtype=np.float64) for block in splits[index]]
