"""Group lasso: value, gradient, and zero groups."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mipprune.errors import InputError
from mipprune.training import GroupLasso
from tests.training.networks import TinyNet, tiny_groups


def by_hand(net: TinyNet) -> Tensor:
    """Class by class: filter, bias, scale and shift of one channel."""
    total = torch.zeros(())
    for c in range(4):
        parts = [net.conv1.weight[c], net.bn1.weight[c], net.bn1.bias[c]]
        assert net.conv1.bias is not None
        parts.append(net.conv1.bias[c])
        flat = torch.cat([p.reshape(-1) for p in parts])
        total = total + math.sqrt(12 / 276) * flat.norm()
    for c in range(6):
        parts = [net.conv2.weight[c], net.bn2.weight[c], net.bn2.bias[c]]
        flat = torch.cat([p.reshape(-1) for p in parts])
        total = total + math.sqrt(38 / 276) * flat.norm()
    return total


def test_value_and_gradient() -> None:
    net, other = TinyNet(), TinyNet()
    method = GroupLasso(strength=0.3)
    method.prepare(net, tiny_groups())
    found, expected = method.penalty(), 0.3 * by_hand(other)
    torch.testing.assert_close(found, expected)
    torch.autograd.backward(found)
    torch.autograd.backward(expected)
    for own, hand in zip(net.parameters(), other.parameters(), strict=True):
        if hand.grad is None:
            assert own.grad is None
        else:
            torch.testing.assert_close(own.grad, hand.grad)


def test_zero_groups_have_no_gradient_and_go_first() -> None:
    net, groups = TinyNet(), tiny_groups()
    method = GroupLasso()
    method.prepare(net, groups)
    with torch.no_grad():
        for name in ("conv2.weight", "bn2.weight", "bn2.bias"):
            net.get_parameter(name)[3] = 0.0
    torch.autograd.backward(method.loss(None, None, torch.zeros(())))
    gradient = net.conv2.weight.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert not gradient[3].any()
    assert gradient[2].any()
    assert method.scores()[7] == 0
    assert np.flatnonzero(~groups.kept(method.choose())).tolist() == [7]
    assert method.end_epoch({}) == {"lasso_below": 1.0}


def test_wrong_settings_are_refused() -> None:
    for options in ({"strength": -1.0}, {"threshold": 0.0}):
        with pytest.raises(InputError):
            GroupLasso(**options)
