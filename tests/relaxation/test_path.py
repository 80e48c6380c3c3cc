import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from mipprune.errors import InputError
from mipprune.problem import ChannelSelection
from mipprune.relaxation import certify, path, relax
from tests.relaxation.instances import brute_force, random_problem


def cheapest(problem: ChannelSelection) -> NDArray[np.bool_]:
    """Remove the channel that costs least, one after the other."""
    mask = np.ones(problem.n_channels, dtype=bool)
    while not problem.is_feasible(mask):
        kept = np.flatnonzero(mask)
        trials = [mask & (np.arange(mask.size) != j) for j in kept]
        mask = min(trials, key=problem.value)
    return mask


def test_curve_bounds_every_keep() -> None:
    problem = random_problem(6)
    points = path(problem, incumbent=cheapest)
    assert [point.keep for point in points] == list(range(1, problem.n_channels + 1))
    for point in points:
        optimum = brute_force(problem.with_keep(point.keep))
        assert point.bound <= optimum + 1e-12 * problem.energy
        assert point.value >= optimum - 1e-12 * problem.energy
        assert 0 <= point.gap <= 1
    assert all(a.bound >= b.bound for a, b in itertools.pairwise(points))
    assert all(a.value >= b.value for a, b in itertools.pairwise(points))
    assert points[-1].gap < 1e-3


def test_warm_start_equals_cold_start() -> None:
    problem = random_problem(8)
    for point in path(problem, tol=1e-9):
        cold = relax(problem.with_keep(point.keep), "perspective", tol=1e-9).bound
        assert point.bound >= cold - 1e-7 * problem.energy
        assert point.relaxation.bound == pytest.approx(cold, rel=1e-6, abs=1e-9 * problem.energy)


def test_path_without_incumbent_and_wrong_keeps() -> None:
    problem = random_problem(6)
    (point,) = path(problem, [2])
    assert point.value == np.inf
    assert point.gap == np.inf
    with pytest.raises(InputError, match="keeps"):
        path(problem, [problem.n_channels + 1])


def test_certify_any_feasible_mask() -> None:
    problem = random_problem(6).with_keep(2)
    mask = cheapest(problem)
    proof = certify(problem, mask)
    assert proof.mask is not None
    assert proof.value is not None
    assert np.array_equal(proof.mask, mask)
    assert proof.bound <= brute_force(problem) <= problem.value(mask) <= proof.value
    with pytest.raises(InputError, match="channels"):
        certify(problem, np.ones(problem.n_channels, dtype=bool))
