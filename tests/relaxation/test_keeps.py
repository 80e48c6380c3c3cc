"""Bounds of several keeps from one factorisation."""

import numpy as np
import pytest

from mipprune.errors import InputError
from mipprune.problem import ChannelSelection
from mipprune.relaxation import bounds_of_keeps, relax
from tests.relaxation.instances import brute_force, random_problem


def test_hand_case() -> None:
    # Orthogonal channels that cost 2, 9/2 and 1/2: sums of the cheapest are exact.
    problem = ChannelSelection(np.eye(3), [[2.0], [3.0], [1.0]], 14.0, [1, 1, 1])
    assert bounds_of_keeps(problem, [3, 2, 1, 0]) == pytest.approx([0, 0.5, 2.5, 7.0], abs=1e-9)
    assert bounds_of_keeps(problem, [7]) == pytest.approx([0.0], abs=1e-9)


def test_never_above_the_optimum_and_as_good_as_single_directions() -> None:
    """All masks of at most so many channels, other limits and forced channels included."""
    compared = 0
    for seed in range(12):
        given = random_problem(seed)
        problem = ChannelSelection.from_terms(
            given.terms,
            prices=given.prices,
            resources=[r for r in given.resources if r.name != "channels"],
            forced_in=given.forced_in,
            forced_out=given.forced_out,
        )
        keeps = list(range(problem.n_channels + 1))
        bounds = bounds_of_keeps(problem, keeps)
        for keep, bound in zip(keeps, bounds, strict=True):
            if keep < problem.forced_in.sum():
                assert bound == np.inf
                continue
            limited = problem.with_keep(keep)
            optimum = brute_force(limited)
            assert bound <= optimum + 1e-13 * problem.energy
            if np.isfinite(optimum) and not problem.prices.any() and not problem.resources:
                alone = relax(limited, "gl").bound
                assert bound == pytest.approx(alone, rel=1e-9, abs=1e-9 * problem.energy)
                compared += 1
    assert compared > 10


def test_refuses_what_is_no_number_of_channels() -> None:
    with pytest.raises(InputError, match="keeps"):
        bounds_of_keeps(random_problem(0), [1.5])  # type: ignore[list-item]  # what is refused
