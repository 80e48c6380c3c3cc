"""Greedy elimination to several counts at once, against costs and removals done one by one."""

import numpy as np
import pytest

from mipprune.problem import ChannelSelection, Term
from mipprune.solvers import _removal_sweep
from mipprune.solvers._removal_sweep import RemovalSweep
from mipprune.solvers.elimination_path import elimination_path


def problem_of(sizes: list[list[int]], seed: int, ridge: float = 0.05) -> ChannelSelection:
    """Correlated channels; one list of group sizes per layer."""
    generator = np.random.default_rng(seed)
    terms = []
    for own in sizes:
        d = sum(own)
        x = generator.normal(size=(60, d)) @ (np.eye(d) + 0.3 * generator.normal(size=(d, d)))
        y = x @ generator.normal(size=(d, 4)) + 0.1 * generator.normal(size=(60, 4))
        gram, cross = x.T @ x / 60, x.T @ y / 60
        terms.append(Term.create(gram, cross, float((y**2).sum() / 60), own, ridge=ridge))
    return ChannelSelection.from_terms(terms)


def one_by_one(problem: ChannelSelection) -> dict[int, bytes]:
    """The whole path with every cost a difference of two values."""
    mask = ~problem.forced_out
    path = {int(mask.sum()): mask.tobytes()}
    while (mask & ~problem.forced_in).any():
        costs = np.full(mask.size, np.inf)
        for j in np.flatnonzero(mask & ~problem.forced_in):
            smaller = mask.copy()
            smaller[j] = False
            costs[j] = problem.value(smaller)
        mask = mask.copy()
        mask[int(np.argmin(costs))] = False
        path[int(mask.sum())] = mask.tobytes()
    return path


@pytest.mark.parametrize("delay", [2, 64])
@pytest.mark.parametrize(
    "sizes",
    [[[1] * 14], [[2] * 7], [[1, 3, 2, 1, 2, 3]], [[1] * 9, [2, 0, 1, 2, 2, 0, 3, 1, 2]]],
)
def test_path_is_that_of_exact_costs(
    sizes: list[list[int]], delay: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_removal_sweep, "DELAY", delay)
    for seed in range(3):
        problem = problem_of(sizes, seed)
        p = problem.n_channels
        expected = one_by_one(problem)
        found = elimination_path(problem, range(p + 1))
        assert {count: mask.tobytes() for count, mask in found.items()} == expected
        some = elimination_path(problem, [2, p - 1])
        assert {count: mask.tobytes() for count, mask in some.items()} == {
            count: expected[count] for count in (2, p - 1)
        }


@pytest.mark.parametrize("delay", [3, 64])
@pytest.mark.parametrize("renewal", [0.1, 0.75])
def test_costs_stay_exact_along_the_sweep(
    delay: int, renewal: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several removed at once, prices, two layers; P held back, settled and renewed."""
    monkeypatch.setattr(_removal_sweep, "DELAY", delay)
    monkeypatch.setattr(_removal_sweep, "RENEWAL", renewal)
    problem = problem_of([[2] * 12, [1] * 12], 5)
    problem = ChannelSelection.from_terms(problem.terms, prices=np.linspace(0.0, 0.2, 12))
    sweep = RemovalSweep(problem, np.ones(12, dtype=bool))
    for gone in ([3], [0, 7, 9], [1], [2, 11], [4]):
        sweep.remove(np.array(gone))
        mask = sweep.mask
        costs = sweep.costs()
        assert np.all(np.isinf(costs[~mask]))
        for j in np.flatnonzero(mask):
            smaller = mask.copy()
            smaller[j] = False
            expected = problem.value(smaller) - problem.value(mask)
            assert costs[j] == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_forced_channels_and_duplicates() -> None:
    problem = problem_of([[1] * 6], 1, ridge=0.0)
    term = problem.terms[0]
    twice = np.repeat(np.arange(6), 2)
    doubled = Term.create(term.gram[np.ix_(twice, twice)], term.cross[twice], term.energy, [1] * 12)
    forced_in, forced_out = np.zeros(12, dtype=bool), np.zeros(12, dtype=bool)
    forced_in[[0, 4]], forced_out[11] = True, True
    problem = ChannelSelection.from_terms([doubled], forced_in=forced_in, forced_out=forced_out)
    path = elimination_path(problem, [1, 2, 6, 11])
    assert set(path) == {2, 6, 11}
    assert np.flatnonzero(path[2]).tolist() == [0, 4]
    # One of each pair of equal channels is enough.
    assert problem.value(path[6]) == pytest.approx(problem.value(path[11]), rel=1e-6)
    assert not any(mask[11] for mask in path.values())
