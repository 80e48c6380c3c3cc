"""Bounds on the weights hold for optimal solutions and come from data only."""

from collections.abc import Callable

import numpy as np
import pytest

from mipprune.errors import InputError
from mipprune.formulation import weight_bounds
from mipprune.formulation._weights import cross_of
from mipprune.problem import ChannelSelection, Resource, solve_psd

Small = Callable[..., ChannelSelection]
Values = Callable[[ChannelSelection], dict[tuple[bool, ...], float]]


@pytest.mark.parametrize("seed", range(12))
def test_optimal_weights_are_within_the_bounds(seed: int, small: Small, values: Values) -> None:
    problem = small(seed, p=5, two_terms=seed % 2 == 0)
    table = values(problem)
    ordered = sorted(table, key=table.__getitem__)
    best = np.array(ordered[0])
    for incumbent in (best, np.array(ordered[len(ordered) // 2])):
        for term, bound in zip(problem.terms, weight_bounds(problem, incumbent), strict=True):
            rows = term.rows(best)
            weights = solve_psd(term.damped_gram[np.ix_(rows, rows)], cross_of(term)[rows])
            limits = bound[term.channel_of_row][rows]
            assert np.all(np.abs(weights).max(1, initial=0.0) <= limits)


def test_a_better_incumbent_gives_smaller_bounds(small: Small, values: Values) -> None:
    problem = small(1, p=5)
    table = values(problem)
    good, bad = min(table, key=table.__getitem__), max(table, key=table.__getitem__)
    tight, loose = (weight_bounds(problem, np.array(mask))[0] for mask in (good, bad))
    assert np.all(tight < loose)


def test_hand_case() -> None:
    # G = 1, C = 1, e = 1 twice: W0 = 1, L0 = 0; the empty mask has value 1, so Delta = 1.
    problem = ChannelSelection(np.eye(2), np.ones((2, 1)), 2.0, [1, 1], keep=1)
    np.testing.assert_allclose(weight_bounds(problem)[0], 1 + np.sqrt(2), rtol=1e-5)


def test_stated_bounds_are_used_as_they_are(small: Small) -> None:
    problem = small(0, box=0.25)
    np.testing.assert_array_equal(weight_bounds(problem)[0], 0.25)
    assert np.all(weight_bounds(problem, np.zeros(4, bool) | [0, 0, 1, 0])[0] <= 0.25)


def test_no_default_exists(small: Small) -> None:
    problem = small(0)
    with pytest.raises(InputError, match="breaks a limit"):
        weight_bounds(problem, np.ones(4, bool))
    lower = ChannelSelection.from_terms(
        problem.terms, resources=[Resource("least", np.ones(4), lower=2.0)]
    )
    with pytest.raises(InputError, match="feasible mask"):
        weight_bounds(lower)
    x = np.ones((5, 2))
    singular = ChannelSelection(x.T @ x, x.T @ x[:, :1], 5.0, [1, 1])
    with pytest.raises(InputError, match="singular"):
        weight_bounds(singular)


def test_negative_prices_widen_the_bounds() -> None:
    gram, cross = np.eye(2), np.ones((2, 1))
    plain = ChannelSelection(gram, cross, 2.0, [1, 1])
    priced = ChannelSelection(gram, cross, 2.0, [1, 1], prices=[-1.0, 0.0])
    empty = np.zeros(2, bool)
    assert np.all(weight_bounds(priced, empty)[0] > weight_bounds(plain, empty)[0])
