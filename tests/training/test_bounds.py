"""M per layer: against peaks written by hand."""

import math

import pytest
import torch

from mipprune.errors import InputError
from mipprune.graph.groups import ChannelGroups
from mipprune.training import measure_big_m
from tests.training.networks import TinyNet


def test_big_m_is_the_peak_of_each_layer_with_its_norm(net: TinyNet, groups: ChannelGroups) -> None:
    with torch.no_grad():
        net.bn1.bias[1] = -7.0
        net.conv2.weight.zero_()
        net.bn2.weight.zero_()
    found = measure_big_m(net, groups, scale=0.5, floor=0.01)
    assert found["conv1.weight"] == found["bn1.weight"] == 3.5
    assert found["conv2.weight"] == 0.01
    with torch.no_grad():
        net.conv1.weight[0] = math.nan
    with pytest.raises(InputError, match="not finite"):
        measure_big_m(net, groups)
    with pytest.raises(InputError, match="floor"):
        measure_big_m(net, groups, floor=0.0)
