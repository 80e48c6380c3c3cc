"""Initial weights."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from mipprune.errors import InputError
from mipprune.models._weights import build_with, initialise


def test_variances_follow_the_fan_out() -> None:
    model: Any = nn.Sequential(
        nn.Conv2d(8, 64, 5), nn.Conv2d(64, 64, 3, groups=64), nn.Linear(900, 40)
    )
    initialise(model, torch.Generator().manual_seed(0))
    assert float(model[0].weight.detach().std()) == pytest.approx(
        math.sqrt(2 / (64 * 25)), rel=0.03
    )
    assert float(model[1].weight.detach().std()) == pytest.approx(math.sqrt(2 / 9), rel=0.1)
    # Uniform on +-1/30 has standard deviation 1/(30 sqrt 3).
    assert float(model[2].weight.detach().std()) == pytest.approx(1 / (30 * math.sqrt(3)), rel=0.03)
    assert float(model[2].weight.detach().abs().max()) <= 1 / 30
    assert not model[0].bias.any()


def test_norms_are_reset() -> None:
    norm: Any = nn.BatchNorm2d(3)
    norm.running_mean.fill_(5.0)
    norm.weight.data.fill_(2.0)
    initialise(nn.Sequential(norm), torch.Generator().manual_seed(0))
    assert torch.equal(norm.weight, torch.ones(3))
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(InputError, match=r"'1' of type PReLU"):
        build_with(lambda: nn.Sequential(nn.Linear(2, 2), nn.PReLU()), None)
