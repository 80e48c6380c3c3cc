"""Candidate widths: held-out batches, uniform widths, and the choice between candidates."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from mipprune.formulation.widths import WidthCurve, resource_costs
from mipprune.graph import Budgets, ChannelGroups, channel_groups
from mipprune.pipeline._trials import (
    held_out,
    late_weighted,
    try_out,
    uniform_widths,
    with_counts,
)
from mipprune.solvers.widths import choose_widths


def chain() -> ChannelGroups:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    return channel_groups(model, torch.zeros(1, 6))


def curves(groups: ChannelGroups) -> list[WidthCurve]:
    counts = np.arange(1, 9)
    return [
        WidthCurve(f.name, counts, scale / counts - scale / 8, 0 * counts.astype(float))
        for f, scale in zip(groups, (1.0, 4.0), strict=True)
    ]


def test_every_fourth_batch_is_held_out() -> None:
    part, aside = held_out(list(range(10)))
    assert list(part) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert list(part) == [0, 1, 2, 4, 5, 6, 8, 9], "can be read again"
    assert list(aside) == [3, 7]
    few = [1, 2, 3]
    assert held_out(few) == (few, few)


@pytest.mark.parametrize("budget", ["30%", "50%", "80%", "100%"])
def test_uniform_widths_are_the_widest_shares_that_fit(budget: str) -> None:
    groups = chain()
    resources = Budgets(macs=budget).resolve(groups)
    found = uniform_widths(groups, curves(groups), resources)
    assert found is not None
    counts = sorted(found.values())
    assert counts[-1] - counts[0] <= 1
    limit = resources[0].limit

    def macs(first: int, second: int) -> int:
        return 6 * first + first * second + 2 * second

    assert macs(found["0"], found["2"]) <= limit
    # No family can be one wider.
    if counts[0] < 8:
        assert macs(counts[0] + 1, counts[0] + 1) > limit


def test_uniform_widths_where_nothing_fits() -> None:
    groups = chain()
    (resource,) = Budgets(macs="50%").resolve(groups)
    narrow = [
        WidthCurve(c.family, c.counts[6:], c.values[6:], c.bounds[6:]) for c in curves(groups)
    ]
    assert uniform_widths(groups, narrow, [resource]) is None


def test_other_widths_keep_the_bounds_and_get_their_own_value() -> None:
    groups = chain()
    own = curves(groups)
    resources = Budgets(macs="50%").resolve(groups)
    best = choose_widths(groups, own, resources)
    uniform = uniform_widths(groups, own, resources)
    assert uniform is not None
    other = with_counts(best, uniform, groups, own, resources)
    expected = sum(float(c.values[uniform[c.family] - 1]) for c in own)
    assert other.value == pytest.approx(expected)
    assert other.value >= best.value
    assert other.bound == best.bound
    assert other.gap > best.gap
    cost = resource_costs(groups, own, resources[0].terms).value(
        [uniform[c.family] - 1 for c in own]
    )
    assert other.costs["macs"] == pytest.approx(cost)
    same = with_counts(best, best.counts, groups, own, resources)
    assert (same.counts, same.costs) == (best.counts, best.costs)
    assert same.value == pytest.approx(best.value)
    assert same.proven == best.proven


def test_late_families_count_more() -> None:
    own = curves(chain())
    first, last = late_weighted(own)
    np.testing.assert_allclose(first.values, 0.3 * own[0].values)
    np.testing.assert_allclose(last.values, own[1].values)


def test_equal_candidates_are_tried_once_and_the_first_always() -> None:
    asked: list[Mapping[str, int]] = []

    def error(counts: Mapping[str, int]) -> float:
        asked.append(counts)
        return float("nan") if counts["a"] == 3 else float(counts["a"])

    candidates = {"program": {"a": 2}, "relative": {"a": 2}, "late": {"a": 1}, "uniform": {"a": 3}}
    assert try_out(candidates, error, None, False) == {
        "program": 2.0, "late": 1.0, "uniform": np.inf
    }  # fmt: skip
    assert len(asked) == 3
    assert list(try_out(candidates, error, 0.0, False)) == ["program"]
