"""Network slimming: penalty, gradient, global rounding."""

import numpy as np
import pytest
import torch

from mipprune.errors import InputError
from mipprune.training import Slimming
from tests.training.networks import TinyNet, tiny_groups


def test_penalty_is_the_sum_of_all_scales() -> None:
    net = TinyNet()
    method = Slimming(strength=0.5)
    method.prepare(net, tiny_groups())
    with torch.no_grad():
        net.bn1.weight.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5]))
        net.bn2.weight.copy_(torch.tensor([0.0, 0.0, 1.0, -1.0, 0.25, 0.25]))
    penalty = method.penalty()
    assert penalty.item() == pytest.approx(0.5 * 6.0)
    torch.autograd.backward(penalty)
    assert net.bn1.weight.grad is not None
    assert net.bn1.weight.grad.tolist() == [0.5, -0.5, 0.0, 0.5]
    assert net.conv1.weight.grad is None
    assert method.scores().tolist() == [1.0, 2.0, 0.0, 0.5, 0.0, 0.0, 1.0, 1.0, 0.25, 0.25]


def test_the_smallest_share_of_all_channels_goes() -> None:
    net, groups = TinyNet(), tiny_groups()
    method = Slimming(ratio=0.4)
    method.prepare(net, groups)
    with torch.no_grad():
        net.bn1.weight.copy_(torch.tensor([0.015, -0.02, 0.9, 0.8]))
        net.bn2.weight.copy_(torch.tensor([0.03, 0.04, 0.5, 0.6, 0.7, 1.0]))
    assert np.flatnonzero(~groups.kept(method.choose())).tolist() == [0, 1, 4, 5]
    figures = method.end_epoch({})
    assert figures["slimming_below_one_percent"] == 0
    assert figures["slimming_mean_scale"] == pytest.approx(0.4605)


def test_wrong_settings_are_refused() -> None:
    for options in ({"strength": -1.0}, {"strength": float("inf")}, {"ratio": 0.0}):
        with pytest.raises(InputError):
            Slimming(**options)
