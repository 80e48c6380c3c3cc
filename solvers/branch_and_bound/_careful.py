"""Search for badly conditioned problems: every bound is recomputed from the data.

Downdates of P and B B' lose about ``eps * cond^2``. Above :data:`WORST` the compiled
search is not used: a node is bounded by the error with all its undecided
channels kept, solved afresh, which loses ``(eps * cond)^2`` only. Right, but slow.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.problem._value import best_weights, value_of_weights
from mipprune.relaxation.removal import RemovalForm
from mipprune.solvers.branch_and_bound._frontier import Found, Task
from mipprune.solvers.branch_and_bound._state import KEPT, REMOVED, UNDECIDED
from mipprune.solvers.branch_and_bound._twins import children, twin_labels

__all__ = ["WORST", "CarefulExplorer", "condition", "downdate_margin"]

Bytes = NDArray[np.int8]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WORST = 1e6
EPSILON = float(np.finfo(np.float64).eps)
ITERATIONS = 20


def condition(problem: ChannelSelection, form: RemovalForm) -> float:
    """Estimate of the largest condition number of G + ridge, rows scaled to a unit diagonal."""
    worst = 1.0
    for term, removal in zip(problem.terms, form.terms, strict=True):
        alive = np.diag(term.damped_gram) > 0
        if not alive.any():
            continue
        scale = np.sqrt(np.diag(term.damped_gram)[alive])
        scaled = term.damped_gram[np.ix_(alive, alive)] / np.outer(scale, scale)
        inverse = removal.inverse[np.ix_(alive, alive)] * np.outer(scale, scale)
        worst = max(worst, _largest(scaled) * _largest(inverse))
    return worst


def downdate_margin(problem: ChannelSelection, worst: float) -> float:
    """Allowance for the downdates of the compiled search.

    Random problems of condition 1e9 to 1e14 lost at most 3e-5 * eps * cond^2 of the
    energy; thirty times that is taken off.
    """
    return 1e-3 * EPSILON * worst**2 * problem.energy / 2


class CarefulExplorer:
    """One node at a time, bounded by its own least-squares problem."""

    def __init__(self, problem: ChannelSelection, worst: float) -> None:
        self.problem = problem
        unboxed = np.full(problem.n_channels, np.inf)
        # Without the box the error is a lower bound; the frontier settles complete masks.
        self.terms = tuple(replace(term, big_m=unboxed) for term in problem.terms)
        rows = max(term.n_rows for term in problem.terms)
        loss = (EPSILON * worst) ** 2 + 8 * EPSILON * (rows + 1)
        self.margin = loss * (problem.energy + float(np.abs(problem.prices).sum()))

    def explore(self, task: Task) -> Found:
        """Bound the node and open its children."""
        undecided = task.undecided
        stays = task.state != REMOVED
        loss = sum(value_of_weights(t, best_weights(t, stays), stays) for t in self.terms)
        prices = self.problem.prices
        kept = task.state == KEPT
        below = loss + float(prices[kept].sum()) + float(np.minimum(prices[undecided], 0.0).sum())
        below = max(task.bound, below)
        found = Found(bound=below, nodes=1, margin=self.margin)
        if self.problem.is_feasible(stays):
            found.states.append(np.where(stays, KEPT, REMOVED).astype(np.int8))
            found.bounds.append(max(below, loss + float(prices[stays].sum())))
            if not np.any(prices[undecided] > 0):
                return found  # removing more never helps
        if below >= task.shared[0]:
            found.pruned = below
            return found
        for c, free in children(undecided, twin_labels(self.problem)):
            child = np.where(stays, KEPT, REMOVED).astype(np.int8)
            child[free] = UNDECIDED
            child[undecided[c]] = REMOVED
            found.states.append(child)
            found.bounds.append(below)
        return found


def _largest(matrix: Floats) -> float:
    """Largest eigenvalue by power iteration from a fixed start, rounded up."""
    vector = np.cos(np.arange(len(matrix), dtype=np.float64)) + 1.5
    size = 0.0
    for _ in range(ITERATIONS):
        vector = vector / max(float(np.linalg.norm(vector)), 1e-300)
        vector = matrix @ vector
        size = float(np.linalg.norm(vector))
    return 2.0 * size
