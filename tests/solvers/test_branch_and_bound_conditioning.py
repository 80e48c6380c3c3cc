"""Badly conditioned problems without ridge: no bound above the best of all masks."""

import itertools

import numpy as np
import pytest

from mipprune.problem import ChannelSelection, SolutionStatus
from mipprune.solvers import solve


def nearly_singular(seed: int) -> ChannelSelection:
    """A few eigenvalues between 1e-5 and 1e-13 beside ordinary ones; cross moments in range."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 3, rng.integers(4, 7))
    d = int(sizes.sum())
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    values = rng.uniform(0.5, 2.0, d)
    tiny = int(rng.integers(1, 4))
    values[:tiny] = 10.0 ** -rng.uniform(5, 13, tiny)
    gram = (basis * values) @ basis.T
    weights = rng.normal(size=(d, 2))
    cross = gram @ weights
    energy = 1.1 * float(np.vdot(weights, cross))
    keep = int(rng.integers(1, sizes.size))
    return ChannelSelection((gram + gram.T) / 2, cross, energy, sizes, keep=keep)


@pytest.mark.parametrize("start", range(0, 80, 20))
def test_no_bound_above_the_best_mask(start: int) -> None:
    for seed in range(start, start + 20):
        problem = nearly_singular(seed)
        p, keep = problem.n_channels, problem.keep
        assert keep is not None
        best = min(
            problem.value(np.isin(np.arange(p), kept))
            for kept in itertools.combinations(range(p), keep)
        )
        solution = solve(problem, gap=1e-9)
        assert solution.bound <= best + 1e-9 * problem.energy, seed
        assert solution.status is SolutionStatus.OPTIMAL
        assert solution.value <= best + 1e-8 * problem.energy, seed
