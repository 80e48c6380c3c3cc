"""Rounding: budgets are never exceeded and never missed by more than one step."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph import Budgets, ChannelGroups, channel_groups, random_masks, round_by_score
from mipprune.graph.costs import CostTable


class Halves(nn.Module):
    """Two families with equal parts, one without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 16)
        self.left, self.right = nn.Linear(8, 9), nn.Linear(8, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.relu(self.stem(x)).chunk(2, 1)
        out: Tensor = self.head(torch.relu(self.left(a) + self.right(b)))
        return out


def _groups() -> dict[str, ChannelGroups]:
    chain = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(384, 10), nn.ReLU(), nn.Linear(10, 2),
    )  # fmt: skip
    return {
        "chain": channel_groups(chain, torch.randn(1, 3, 8, 8), rehearsal=False),
        "halves": channel_groups(Halves(), torch.randn(2, 5), rehearsal=False),
    }


GROUPS = _groups()


def one_more(groups: ChannelGroups, kept: NDArray[np.bool_], name: str) -> list[NDArray[np.bool_]]:
    """All masks with one more class (one of each part) in a family, brute force."""
    family = groups.by_name[name]
    local = kept[family.start : family.stop]
    rows = [np.arange(len(family))]
    if family.parts:
        rows = [np.flatnonzero(family.parts[0] == r) for r in np.unique(family.parts[0])]
    missing = [row[~local[row]] for row in rows]
    if any(m.size == 0 for m in missing):
        return []
    more = kept.copy()
    more[[family.start + int(m[0]) for m in missing]] = True
    return [more]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(GROUPS)),
    st.integers(0, 10**6),
    st.integers(25, 99),
    st.sampled_from(["macs", "params", "channels"]),
)
def test_tight_under_one_budget(name: str, seed: int, percent: int, resource: str) -> None:
    groups = GROUPS[name]
    scores = np.random.default_rng(seed).random(groups.n_classes)
    budgets = Budgets.parse({resource: f"{percent}%"})
    masks = round_by_score(groups, scores, budgets)
    kept = groups.kept(masks)
    (limit,) = budgets.resolve(groups)
    assert sum(t.value(kept) for t in limit.terms) <= limit.limit
    for family in groups:
        for more in one_more(groups, kept, family.name):
            assert sum(t.value(more) for t in limit.terms) > limit.limit


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(40, 99), st.integers(40, 99), st.sampled_from([1, 2, 4]))
def test_several_budgets_and_multiples(seed: int, macs: int, params: int, multiple: int) -> None:
    groups = GROUPS["chain"]
    scores = np.random.default_rng(seed).random(groups.n_classes)
    budgets = Budgets(macs=f"{macs}%", params=f"{params}%", multiple_of=multiple)
    masks = round_by_score(groups, scores, budgets)
    assert budgets.report(groups, masks).met
    for mask in masks.values():
        assert mask.all() or mask.sum() % multiple == 0


def test_the_most_important_stay_within_a_family() -> None:
    groups = GROUPS["chain"]
    scores = np.random.default_rng(3).random(groups.n_classes)
    masks = round_by_score(groups, scores, Budgets(channels="50%"))
    for family in groups:
        own, mask = scores[family.start : family.stop], masks[family.name]
        if not mask.all():
            assert own[mask].min() > own[~mask].max()


def test_channel_budget_keeps_exactly_the_best() -> None:
    groups = GROUPS["chain"]
    scores = np.random.default_rng(4).random(groups.n_classes)
    kept = groups.kept(round_by_score(groups, scores, Budgets(channels=20)))
    assert set(np.flatnonzero(kept)) == set(np.argsort(-scores)[:20])


def test_scores_by_family_and_full_budget() -> None:
    groups = GROUPS["chain"]
    scores = {f.name: np.arange(len(f), dtype=float) for f in groups}
    masks = round_by_score(groups, scores, Budgets(macs="100%"))
    assert all(mask.all() for mask in masks.values())


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros(3), "shape"),
        (np.full(50, np.nan), "NaN"),
        ({"0": np.zeros(16)}, "no scores for"),
        ({"0": np.zeros(2), "3": np.zeros(24), "6": np.zeros(10)}, "scores of '0'"),
    ],
)
def test_bad_scores(scores: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        round_by_score(GROUPS["chain"], scores, Budgets(macs="50%"))  # type: ignore[arg-type]  # on purpose


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.sampled_from(sorted(GROUPS)), st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_cost_updates_equal_a_recount(name: str, seed: int, keep: float) -> None:
    groups = GROUPS[name]
    rng = np.random.default_rng(seed)
    kept = groups.kept(random_masks(groups, rng, keep))
    table = CostTable.build([groups.mac_terms, groups.parameter_terms], groups.n_classes)
    state = table.start(kept)
    assert state.total().tolist() == [groups.macs(kept), groups.parameters(kept)]
    gone = rng.choice(np.flatnonzero(kept), 3, replace=False)
    difference, counts = state.change(gone.tolist(), -1)
    after = kept.copy()
    after[gone] = False
    expected = [
        groups.macs(after) - groups.macs(kept),
        groups.parameters(after) - groups.parameters(kept),
    ]
    assert difference == pytest.approx(expected)
    state.counts = counts
    assert state.total() == pytest.approx([groups.macs(after), groups.parameters(after)])


def test_ten_thousand_classes() -> None:
    layers: list[nn.Module] = [nn.Linear(8, 500)]
    for _ in range(19):
        layers += [nn.ReLU(), nn.Linear(500, 500)]
    groups = channel_groups(
        nn.Sequential(*layers, nn.ReLU(), nn.Linear(500, 4)), torch.randn(1, 8), rehearsal=False
    )
    assert groups.n_classes == 10_000
    scores = np.random.default_rng(0).random(10_000)
    masks = round_by_score(groups, scores, Budgets(macs="40%"))
    assert Budgets(macs="40%").report(groups, masks).rows[0][4] > 0.3995
