"""From scores to masks, and the threshold with a tolerance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Family
from mipprune.training.choosing import choose_by_score, masks_above
from mipprune.training.tolerance import tolerant_threshold
from tests.training.networks import tiny_groups


def test_infinite_scores_stay(groups: ChannelGroups) -> None:
    scores = np.arange(10.0)
    scores[0] = np.inf
    kept = groups.kept(choose_by_score(groups, scores, Budgets(channels=6)))
    assert np.flatnonzero(kept).tolist() == [0, 5, 6, 7, 8, 9]
    scores[3] = np.nan
    with pytest.raises(InputError, match="1 NaN"):
        choose_by_score(groups, scores, Budgets(channels=6))
    with pytest.raises(InputError, match="expected 10 scores"):
        choose_by_score(groups, scores[:4], Budgets(channels=6))


@given(
    values=st.lists(st.floats(0, 1), min_size=10, max_size=10),
    threshold=st.floats(0, 1.2),
    minimum=st.integers(1, 3),
)
def test_masks_above_hold_all_constraints(
    values: list[float], threshold: float, minimum: int
) -> None:
    plain = tiny_groups()
    part = np.array([0, 0, 1, 1, 2, 2])
    groups = ChannelGroups(
        (
            Family("conv1", 0, 4, ("conv1",), ("conv2",), minimum=minimum),
            Family("conv2", 4, 10, ("conv2",), ("fc",), parts=(part,)),
        ),
        plain.axes,
        plain.parameter_terms,
        plain.mac_terms,
    )
    scores = np.array(values)
    kept = groups.kept(masks_above(groups, scores, threshold))
    assert (kept >= (scores >= threshold)).all()
    # Nothing is added to what satisfies the constraints already.
    asked = scores >= threshold
    if asked[:4].sum() >= minimum:
        assert (kept[:4] == asked[:4]).all()
    if kept[:4].sum() > asked[:4].sum():
        assert scores[:4][kept[:4]].min() >= scores[:4][~kept[:4]].max(initial=0)


def test_ties_decide_between_equal_values(groups: ChannelGroups) -> None:
    ties = np.zeros(10)
    ties[[2, 8]] = 1
    kept = groups.kept(masks_above(groups, np.zeros(10), 0.5, ties=ties))
    assert np.flatnonzero(kept).tolist() == [2, 8]


def test_tolerant_threshold_finds_the_edge() -> None:
    net = nn.Linear(100, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.linspace(0.001, 0.1, 100))
    parameters = [net.weight]

    def accuracy(model: nn.Module) -> float:
        return 1.0 if (model.get_parameter("weight") != 0).sum() >= 70 else 0.0

    # Thirty weights may go: any threshold from .030 up to below .031 does that.
    found = tolerant_threshold(net, parameters, accuracy)
    assert 0.0309 <= found < 0.031
    assert (net.weight != 0).all()
    assert tolerant_threshold(net, parameters, lambda model: 1.0) == pytest.approx(0.1, rel=2e-3)
    with pytest.raises(InputError, match="iterations"):
        tolerant_threshold(net, parameters, accuracy, iterations=0)


def test_tolerant_threshold_puts_weights_back_after_an_error() -> None:
    net = nn.Linear(4, 1)
    before = net.weight.detach().clone()
    calls = 0

    def failing(model: nn.Module) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("no data")
        return 1.0

    with pytest.raises(RuntimeError, match="no data"):
        tolerant_threshold(net, list(net.parameters()), failing, largest=10.0)
    assert torch.equal(net.weight, before)
