"""The width program against every combination of widths."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from mipprune.errors import BudgetError
from mipprune.formulation.widths import WidthCurve, resource_costs
from mipprune.graph import Budgets, ChannelGroups, channel_groups
from mipprune.solvers import widths
from mipprune.solvers.widths import choose_widths


class Concatenated(nn.Module):
    """Two branches concatenated, one of them twice, then a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 5, 3, padding=1)
        self.b = nn.Conv2d(3, 4, 1)
        self.c = nn.Conv2d(9, 6, 3, padding=1)
        self.d = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.c(torch.relu(torch.cat([self.a(x), self.b(x)], 1))))
        outputs: torch.Tensor = self.head((x + torch.relu(self.d(x))).mean((2, 3)))
        return outputs


@pytest.fixture(scope="module")
def groups() -> ChannelGroups:
    return channel_groups(Concatenated().eval(), (torch.zeros(2, 3, 6, 6),))


def random_curves(groups: ChannelGroups, rng: np.random.Generator) -> list[WidthCurve]:
    curves = []
    for family in groups:
        counts = np.arange(1, len(family) + 1)
        values = np.sort(rng.random(len(family)))[::-1].copy()
        curves.append(WidthCurve(family.name, counts, values, 0.5 * values))
    return curves


def kept(groups: ChannelGroups, curves: list[WidthCurve], choice: list[int]) -> np.ndarray:
    mask = np.ones(groups.n_classes, dtype=bool)
    for curve, i in zip(curves, choice, strict=True):
        family = groups.by_name[curve.family]
        mask[family.start + curve.counts[i] : family.stop] = False
    return mask


def test_costs_are_those_of_the_masks(groups: ChannelGroups) -> None:
    rng = np.random.default_rng(0)
    curves = random_curves(groups, rng)
    macs = resource_costs(groups, curves, groups.mac_terms)
    parameters = resource_costs(groups, curves, groups.parameter_terms)
    for _ in range(30):
        choice = [int(rng.integers(curve.counts.size)) for curve in curves]
        mask = kept(groups, curves, choice)
        assert macs.value(choice) == pytest.approx(groups.macs(mask), rel=1e-12)
        assert parameters.value(choice) == pytest.approx(groups.parameters(mask), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "limits",
    [{"macs": "45%"}, {"params": "30%"}, {"macs": "60%", "params": "50%", "channels": "70%"}],
    ids=str,
)
def test_agrees_with_every_combination(
    groups: ChannelGroups, seed: int, limits: dict[str, str]
) -> None:
    curves = random_curves(groups, np.random.default_rng(seed))
    resources = Budgets.parse(limits).resolve(groups)
    solution = choose_widths(groups, curves, resources)
    best = bound = np.inf
    for choice in itertools.product(*(range(c.counts.size) for c in curves)):
        mask = kept(groups, curves, list(choice))
        if all(sum(t.value(mask) for t in r.terms) <= r.limit for r in resources):
            pairs = list(zip(curves, choice, strict=True))
            best = min(best, sum(float(c.values[i]) for c, i in pairs))
            bound = min(bound, sum(float(c.bounds[i]) for c, i in pairs))
    assert solution.value == pytest.approx(best, abs=1e-6)
    assert solution.bound <= best + 1e-9
    assert solution.error_bound == pytest.approx(bound, abs=1e-5)
    for resource in resources:
        assert solution.costs[resource.name] <= resource.limit


def test_bounds_are_finite_where_there_was_no_time(
    groups: ChannelGroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = random_curves(groups, np.random.default_rng(0))
    resources = Budgets.parse({"macs": "45%"}).resolve(groups)
    best = choose_widths(groups, curves, resources).value
    monkeypatch.setattr(widths, "_run", lambda *arguments: (None, -np.inf))
    solution = choose_widths(groups, curves, resources)
    assert np.isfinite(solution.error_bound)
    assert solution.error_bound <= solution.bound <= best <= solution.value
    assert not solution.proven


def test_families_without_a_curve_stay_whole(groups: ChannelGroups) -> None:
    curves = random_curves(groups, np.random.default_rng(0))[:1]
    cost = resource_costs(groups, curves, groups.mac_terms)
    mask = kept(groups, curves, [0])
    assert cost.value([0]) == pytest.approx(groups.macs(mask), rel=1e-12)


def test_limits_below_the_narrowest_widths_are_refused(groups: ChannelGroups) -> None:
    curves = [
        WidthCurve(c.family, c.counts[-1:], c.values[-1:], c.bounds[-1:])
        for c in random_curves(groups, np.random.default_rng(0))
    ]
    with pytest.raises(BudgetError, match="narrowest"):
        choose_widths(groups, curves, Budgets(macs="50%").resolve(groups))
