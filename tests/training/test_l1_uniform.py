"""Uniform magnitude pruning: the same share everywhere, the weights decide within a family."""

import pytest
import torch

from mipprune.errors import InputError
from mipprune.graph import channel_groups
from mipprune.graph.budgets import Budgets
from mipprune.models import build_model
from mipprune.training import L1Norm, L1Uniform


def test_widths_shrink_in_proportion() -> None:
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=16)
    with torch.no_grad():  # one layer a hundred times smaller, which must not matter
        for name, parameter in model.named_parameters():
            if "conv2" in name:
                parameter.mul_(0.01)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    uniform, overall = L1Uniform(), L1Norm(normalise="none")
    uniform.prepare(model, groups)
    overall.prepare(model, groups)
    budget = Budgets(macs="30%")
    masks = uniform.choose(budget)
    shares = [mask.mean() for mask in masks.values()]
    assert max(shares) - min(shares) <= 2 / 16  # of the narrowest families
    others = [mask.mean() for mask in overall.choose(budget).values()]
    assert max(others) - min(others) > 0.2
    magnitudes = overall.scores()
    for family in groups:
        own, mask = magnitudes[family.start : family.stop], masks[family.name]
        assert own[mask].min() >= own[~mask].max()


def test_there_is_no_rule_without_a_budget() -> None:
    method = L1Uniform()
    with pytest.raises(InputError, match="prepare"):
        method.scores()
    with pytest.raises(InputError, match="without a budget"):
        method.choose()
