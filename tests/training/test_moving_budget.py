"""The moving budget: limits on the way, marginal costs against differences, the selection."""

import numpy as np
import pytest

from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups
from mipprune.training._moving_budget import MovingBudget


def test_limits_go_geometrically_from_everything_to_the_budget(groups: ChannelGroups) -> None:
    moving = MovingBudget.of(groups, Budgets(macs="25%", params="100%"))
    total = groups.macs()
    limits = [moving.at(p).resolve(groups)[0].limit for p in (0.0, 0.5, 1.0)]
    assert limits == pytest.approx([total, total / 2, total / 4])
    assert moving.at(0.5).resolve(groups)[1].limit == pytest.approx(groups.parameters())
    assert moving.at(1.0) == moving.budget


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 3, 4, 8, 9]])
def test_marginal_cost_is_the_difference_one_class_makes(
    groups: ChannelGroups, kept: list[int]
) -> None:
    moving = MovingBudget.of(groups, Budgets(macs="50%"))
    moving.kept[:] = np.isin(np.arange(10), kept)
    expected = []
    for j in range(10):
        with_it, without = moving.kept.copy(), moving.kept.copy()
        with_it[j], without[j] = True, False
        expected.append((groups.macs(with_it) - groups.macs(without)) / groups.macs())
    np.testing.assert_allclose(moving.marginal(), expected, rtol=1e-12)


def test_selection_goes_by_value_per_cost(groups: ChannelGroups) -> None:
    moving = MovingBudget.of(groups, Budgets(macs="30%"))
    values = np.array([4.0, 3.0, 2.0, 1.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    moving.select(values, 0.0)
    assert moving.kept.all()
    moving.select(values, 1.0)
    assert groups.macs(moving.kept) <= 0.3 * groups.macs()
    kept = [np.flatnonzero(moving.kept[part]) for part in (slice(0, 4), slice(4, 10))]
    for places in kept:
        # The most valuable of each family, which all cost the same.
        assert places.tolist() == list(range(len(places)))
    assert dict(moving.shares())["macs"] == groups.macs(moving.kept) / groups.macs()


def test_what_costs_nothing_stays(groups: ChannelGroups) -> None:
    moving = MovingBudget.of(groups, Budgets(macs="50%"))
    moving.kept[4:] = False
    ranking = moving.ranking(np.zeros(10))
    assert np.isfinite(ranking).all()
    for cost in moving.costs:
        cost._coefficients.zero_()
    assert np.isposinf(moving.ranking(np.zeros(10))).all()
