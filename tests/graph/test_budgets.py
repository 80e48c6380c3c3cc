"""Budgets: what is understood, what is refused, what is reachable."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mipprune.errors import BudgetError, InputError
from mipprune.graph import Budgets, ChannelGroups, CostTerm, channel_groups
from mipprune.graph.budgets import admissible_counts, cheapest, parse_amount


@pytest.fixture(scope="module")
def groups() -> ChannelGroups:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    return channel_groups(net, torch.randn(2, 4), rehearsal=False)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("40%", (0.4, True)),
        (" 12.5 %", (0.125, True)),
        ("100%", (1.0, True)),
        ("1.2M", (1.2e6, False)),
        ("300k", (3e5, False)),
        ("2G", (2e9, False)),
        ("1e6", (1e6, False)),
        (5000, (5000.0, False)),
    ],
)
def test_amounts(amount: str | int, expected: tuple[float, bool]) -> None:
    value, is_fraction = parse_amount("macs", amount)
    assert value == pytest.approx(expected[0])
    assert is_fraction == expected[1]


@pytest.mark.parametrize(
    "amount", ["0%", "101%", "-3", "half", "", "40 percent", 0, -1, 0.4, float("nan"), True, "1.2T"]
)
def test_amounts_that_are_refused(amount: Any) -> None:
    with pytest.raises(InputError, match="macs"):
        Budgets(macs=amount)


def test_a_bare_fraction_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(InputError, match="write '40%'"):
        Budgets(macs=0.4)


@pytest.mark.parametrize("value", [0, -2, 1.5, True, "8"])
def test_multiple_of_is_checked(value: Any) -> None:
    with pytest.raises(InputError, match="multiple_of"):
        Budgets(macs="40%", multiple_of=value)


def test_parse_refuses_unknown_names() -> None:
    assert Budgets.parse({"macs": "40%", "params": None}) == Budgets(macs="40%")
    with pytest.raises(InputError, match="unknown budget 'flops'; known are channels"):
        Budgets.parse({"flops": "40%"})


def test_percentages_are_of_what_remains(groups: ChannelGroups) -> None:
    macs, params = Budgets(macs="50%", params=40).resolve(groups)
    assert (macs.total, macs.limit) == (69.0, 34.5)
    assert (params.total, params.limit) == (83.0, 40.0)


def test_reachable_range_is_exact(groups: ChannelGroups) -> None:
    # One unit in each family: 4 + 1 + 3 MACs, and with biases 4+1 + 1+1 + 3+3 parameters.
    (resource,) = Budgets(macs=8).resolve(groups)
    assert resource.least == 8.0
    with pytest.raises(BudgetError, match=r"goes from 8 \(11\.59%.*to 69 \(100%\)"):
        Budgets(macs=7).resolve(groups)
    with pytest.raises(BudgetError, match="from 13"):
        Budgets(macs="90%", params="1%").resolve(groups)


def test_no_budget_and_latency_without_a_model(groups: ChannelGroups) -> None:
    with pytest.raises(BudgetError, match="no budget given"):
        Budgets().resolve(groups)
    with pytest.raises(BudgetError, match="latency model"):
        Budgets(latency=3.0).resolve(groups)
    terms = [CostTerm("0", 0.5, (np.arange(6),))]
    (resource,) = Budgets(latency="50%").resolve(groups, terms)
    assert (resource.limit, resource.least) == (1.5, 0.5)


def test_report_says_asked_against_achieved(groups: ChannelGroups) -> None:
    masks = groups.masks(np.arange(11) % 2 == 0)
    report = Budgets(macs="50%").report(groups, masks)
    assert [row[:4] for row in report.rows] == [("macs", "50%", 34.5, 30.0)]
    assert report.rows[0][4] == pytest.approx(30 / 69)
    assert report.met
    assert "43.48%" in str(report)
    assert not Budgets(macs="20%").report(groups, masks).met


def test_admissible_counts_are_multiples_or_all(groups: ChannelGroups) -> None:
    family = groups.families[0]
    assert admissible_counts(groups, family, 6, 1, 1).tolist() == [1, 2, 3, 4, 5, 6]
    assert admissible_counts(groups, family, 6, 1, 4).tolist() == [4, 6]
    assert admissible_counts(groups, family, 6, 1, 8).tolist() == [6]


def test_cheapest_is_the_least_of_all_masks(groups: ChannelGroups) -> None:
    costs = []
    for bits in itertools.product([False, True], repeat=11):
        kept = np.array(bits)
        if kept[:6].any() and kept[6:].any():
            costs.append(groups.macs(kept))
    assert groups.macs(cheapest(groups, groups.mac_terms)) == min(costs)
